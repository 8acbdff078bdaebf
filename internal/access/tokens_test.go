package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
)

func guardOf(t *testing.T, dir string) *Guard {
	t.Helper()
	g, err := LoadGuard(dir)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestTokensAreMadeListedAndEndedWhileTheyAreInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	if err := Ensure(dir, "db1", config.API{}); err != nil {
		t.Fatal(err)
	}
	guard := guardOf(t, dir)
	if list, err := ListTokens(dir); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	reader, first, err := CreateToken(dir, config.API{}, Reader, " for  prometheus\n")
	if err != nil {
		t.Fatal(err)
	}
	operator, second, err := CreateToken(dir, config.API{}, Operator, "")
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]Role{reader: Reader, operator: Operator} {
		if role, known := guard.Role(token); role != want || !known {
			t.Errorf("%s, %v; want %s", role, known, want)
		}
	}
	list, err := ListTokens(dir)
	if err != nil || len(list) != 2 || list[0].ID != first.ID || list[0].Label != "for prometheus" || !list[0].Created.Equal(first.Created) || list[1].Label != "" {
		t.Fatalf("%+v, %v", list, err)
	}
	gone, err := RevokeToken(dir, strings.ToUpper(first.ID))
	if err != nil || gone.Label != "for prometheus" {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, known := guard.Role(reader); known {
		t.Error("a revoked token is known")
	}
	if role, known := guard.Role(operator); role != Operator || !known {
		t.Error("another token went with it")
	}
	if _, err := RevokeToken(dir, first.ID); problem.CodeOf(err) != "token_unlisted" {
		t.Errorf("twice: %v", err)
	}
	if list, err := ListTokens(dir); err != nil || len(list) != 1 || list[0].ID != second.ID || list[0].Created.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if err != nil || strings.Contains(string(text), "prometheus") || !strings.HasPrefix(string(text), tokensHeader) {
		t.Errorf("the file says %q, %v", text, err)
	}
	info, err := os.Stat(filepath.Join(dir, tokensFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, _, err := CreateToken(dir, config.API{}, "admin", ""); problem.CodeOf(err) != "token_role" {
		t.Errorf("role: %v", err)
	}
	if _, _, err := CreateToken(dir, config.API{}, Reader, strings.Repeat("x", 200)); problem.CodeOf(err) != "token_label" {
		t.Errorf("label: %v", err)
	}
}

// A line that a person removes, or a file that cannot be understood, ends tokens at once.
func TestTokensEndByHand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	tokens, err := Create(dir, "db1")
	if err != nil {
		t.Fatal(err)
	}
	guard, path := guardOf(t, dir), filepath.Join(dir, tokensFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(string(text), line(Reader, tokens.Reader), "", 1))
	if _, known := guard.Role(tokens.Reader); known {
		t.Error("a removed line's token is known")
	}
	if _, known := guard.Role(tokens.Operator); !known {
		t.Error("the other is not")
	}
	write(string(text) + "superuser 00\n")
	if _, known := guard.Role(tokens.Operator); known {
		t.Error("a file that cannot be understood lets somebody in")
	}
	write(string(text))
	if _, known := guard.Role(tokens.Reader); !known {
		t.Error("the file is whole again, and the token is not known")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, known := guard.Role(tokens.Operator); known {
		t.Error("without the file somebody is let in")
	}
}

// A certificate that is there stays: tokens that were made pin it.
func TestEnsureKeepsWhatIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	if _, err := Create(dir, "db1"); err != nil {
		t.Fatal(err)
	}
	before, err := pinOf(filepath.Join(dir, certificateFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := Ensure(dir, "db2", config.API{}); err != nil {
		t.Fatal(err)
	}
	if after, err := pinOf(filepath.Join(dir, certificateFile)); err != nil || after != before {
		t.Errorf("the key changed, %v", err)
	}
	if list, err := ListTokens(dir); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	other := filepath.Join(t.TempDir(), "api")
	if err := Ensure(other, "x", config.API{Certificate: "/elsewhere.pem", Key: "/elsewhere.key"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(other, certificateFile)); !os.IsNotExist(err) {
		t.Errorf("a certificate was made beside the configured one: %v", err)
	}
}
