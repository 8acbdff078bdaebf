package pgbackrest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/instance"
)

// The script keeps a file of the log where one repository has it, leaves one out that has missed any, and fails where none
// takes it.
func TestScriptOfSeveralRepositories(t *testing.T) {
	home := filepath.Join(t.TempDir(), "a 100% b's $HOME")
	policy := backup.Policy{RetentionDays: 7, Repositories: []backup.Repository{{Number: 1, Place: "/1"}, {Number: 2, Place: "/2"}}}
	var engines []*Engine
	for _, r := range policy.Repositories {
		e := &Engine{Home: home, Number: r.Number, Policy: func() backup.Policy { return policy }}
		if err := os.MkdirAll(e.Dir(), 0o700); err != nil {
			t.Fatal(err)
		}
		engines = append(engines, e)
	}
	// It notes what it was called with, and fails for the repositories that are away.
	program := filepath.Join(home, "program")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(program, "#!/bin/sh\nconfig=${1#--config=}\n[ ! -e \"${config%/*}/away\" ] && echo \"$4\" >>\"${config%/*}/got\"\n")
	path := filepath.Join(home, archiveScript)
	write(path, "#!/bin/sh\n"+script(program, true, engines))
	push := func(name string, kept bool) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "sh", path, "pg_wal/"+name).CombinedOutput(); (err == nil) != kept {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
	got := func(e *Engine, want ...string) {
		t.Helper()
		text, _ := os.ReadFile(e.path("got"))
		if list := strings.Fields(strings.ReplaceAll(string(text), "pg_wal/", "")); !slices.Equal(list, want) {
			t.Errorf("%d got %v, not %v", e.Number, list, want)
		}
	}
	owed := func(e *Engine, lift bool, want ...string) {
		t.Helper()
		if list, err := e.Owed(lift); err != nil || !slices.Equal(list, want) {
			t.Errorf("%d is owed %v, %v, not %v", e.Number, list, err, want)
		}
	}
	away := engines[1].path("away")
	push("1", true)
	write(away, "")
	push("2", true)
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
	push("3", true) // it is left out still
	got(engines[0], "1", "2", "3")
	got(engines[1], "1")
	owed(engines[1], false, "2", "3")
	owed(engines[1], true, "2", "3")
	push("4", true)
	got(engines[1], "1", "4")
	owed(engines[1], false, "2", "3")
	if err := engines[1].Paid(); err != nil {
		t.Fatal(err)
	}
	owed(engines[1], false)
	owed(engines[1], true)
	write(away, "")
	write(engines[0].path("away"), "")
	push("5", false)
	push("6", false) // the server tries the same again, in truth
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
	push("6", true)
	got(engines[1], "1", "4", "6")
	owed(engines[0], false, "5", "6")
	owed(engines[1], true, "5", "6")
	owed(engines[1], false, "5", "6") // as long as it is not paid
}

func TestScriptWithoutRepositories(t *testing.T) {
	one := []*Engine{{Home: "/h", Number: 1, Policy: func() backup.Policy { return backup.Policy{} }}}
	for _, c := range []struct {
		program string
		ever    bool
		made    []*Engine
		kept    bool
	}{{"", false, nil, true}, {"", true, one, false}, {"/bin/true", true, nil, false}, {"/bin/true", true, one, true}, {"/bin/false", true, one, false}} {
		if err := exec.CommandContext(t.Context(), "sh", "-c", script(c.program, c.ever, c.made), "sh", "x").Run(); (err == nil) != c.kept {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestConfigOfObjectStores(t *testing.T) {
	for text, c := range map[string]struct {
		credentials backup.Credentials
		want        []string
	}{
		"/r": {nil, []string{"repo1-path=/r"}},
		"s3://b/x/y/?endpoint=http://127.0.0.1:9000&region=eu&uri-style=path": {backup.Credentials{"key": "k", "secret": "s", "token": "t"},
			[]string{"repo1-type=s3", "repo1-path=/x/y", "repo1-s3-bucket=b", "repo1-s3-endpoint=http://127.0.0.1:9000", "repo1-s3-region=eu", "repo1-s3-uri-style=path", "repo1-s3-key=k", "repo1-s3-key-secret=s", "repo1-s3-token=t"}},
		"azure://c?account=a": {backup.Credentials{"sas": "k"}, []string{"repo1-type=azure", "repo1-path=/", "repo1-azure-container=c", "repo1-azure-account=a", "repo1-azure-key-type=sas", "repo1-azure-key=k"}},
		"gcs://b/x":           {backup.Credentials{"service": "{}"}, []string{"repo1-type=gcs", "repo1-gcs-bucket=b", "repo1-gcs-key=/h/gcs-key.json"}},
		"gcs://b/z":           {backup.Credentials{"token": "k"}, []string{"repo1-gcs-key-type=token", "repo1-gcs-key=k"}},
	} {
		place, err := backup.ParsePlace(text)
		if err != nil {
			t.Fatal(err)
		}
		policy := backup.Policy{RetentionDays: 9, Repositories: []backup.Repository{{Number: 1, Place: text}}}
		e := &Engine{Server: &instance.Server{Dir: "/i"}, Home: "/h", Number: 1, Policy: func() backup.Policy { return policy }}
		lines := strings.Split(string(e.config(place, c.credentials, "secret", "/p")), "\n")
		for _, want := range append(c.want, "repo1-cipher-pass=secret", "repo1-retention-full=9", "cmd=/p") {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: %q is missing in %q", text, want, lines)
			}
		}
	}
}
