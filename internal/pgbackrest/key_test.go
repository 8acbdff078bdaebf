package pgbackrest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestKeysOfTheOperator(t *testing.T) {
	dir := t.TempDir()
	file, asked := filepath.Join(dir, "key"), filepath.Join(dir, "asked")
	const key = "0123456789abcdef+/="
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is := func(k *Keys, want, code string) {
		t.Helper()
		got, err := k.read(t.Context())
		if got != want || problem.CodeOf(err) != code {
			t.Errorf("%q, %v; want %q, %q", got, err, want, code)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("a part of the key is told: %v", err)
		}
	}
	f := &Keys{File: file}
	is(f, "", "backup_key_unavailable")
	for _, bad := range []string{"", "\n", "s3cret", "s3cret6789abcdef\nrepo1-path=/", "s3cret 789abcdef0", "s3cret789abcdef\x00", "s3cret789äbcdef01", strings.Repeat("s3cret", 1000)} {
		write(file, bad)
		is(f, "", "backup_key_invalid")
	}
	write(file, " "+key+"\r\n")
	is(f, key, "")

	c := &Keys{Command: "echo asked >>'" + asked + "'; cat '" + file + "'"}
	is(c, key, "")
	is(c, key, "")
	if text, err := os.ReadFile(asked); err != nil || string(text) != "asked\n" {
		t.Errorf("the service was asked again: %q, %v", text, err)
	}
	is(&Keys{Command: "echo s3cret6789abcdef; echo no service >&2; exit 3"}, "", "backup_key_unavailable")
	is(&Keys{Command: "true"}, "", "backup_key_invalid")
	if (&Keys{}).theirs() || (*Keys)(nil).theirs() || !f.theirs() || !c.theirs() {
		t.Error("whose key it is")
	}
}

// A key of the operator's that the repository was not made with is refused as long as the log is archived with another.
func TestSameKey(t *testing.T) {
	policy := backup.Policy{Repositories: []backup.Repository{{Number: 1, Place: "/r"}}}
	e := &Engine{Server: &instance.Server{Dir: "/i"}, Home: t.TempDir(), Number: 1, Policy: func() backup.Policy { return policy }, Keys: &Keys{File: "/key"}}
	if err := e.sameKey("first"); err != nil {
		t.Errorf("where nothing is archived yet: %v", err)
	}
	if err := os.WriteFile(e.path(configFile), e.config(backup.Place{Kind: backup.Directory, Path: "/r"}, nil, "first", "pgbackrest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.sameKey("first"); err != nil {
		t.Error(err)
	}
	if err := e.sameKey("second"); problem.CodeOf(err) != "backup_key_wrong" {
		t.Errorf("%v", err)
	}
	e.Keys = nil
	if err := e.sameKey("second"); err != nil {
		t.Errorf("of the agent's own: %v", err)
	}
}
