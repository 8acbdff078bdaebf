package access

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestTokensWorkAndAreNotKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	tokens, err := Create(dir, "db1.example.com")
	if err != nil {
		t.Fatal(err)
	}
	guard, err := LoadGuard(dir)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]Role{tokens.Operator: Operator, tokens.Reader: Reader} {
		if role, known := guard.Role(token); role != want || !known {
			t.Errorf("%s, %v; want %s", role, known, want)
		}
	}
	for _, token := range []string{"", "x", tokens.Operator + "x", tokens.Operator[:len(tokens.Operator)-1]} {
		if role, known := guard.Role(token); known {
			t.Errorf("%q is %s", token, role)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
		if strings.Contains(string(text), strings.Split(tokens.Operator, ".")[1]) {
			t.Errorf("%s holds the token", e.Name())
		}
	}
}

func TestTokenPinsTheCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	tokens, err := Create(dir, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := Certificate(dir, config.API{})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	if !bytes.Equal(client.Pin(tokens.Reader), sum[:]) {
		t.Error("the pin is not that of the certificate")
	}
	for _, host := range []string{"10.0.0.1", "localhost", "127.0.0.1"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedTokensAreRefusedWithTheirLine(t *testing.T) {
	for _, text := range []string{"operator\n", "admin " + strings.Repeat("00", 32) + "\n", "reader 00\n", "reader zz\n", strings.Repeat("x", 5000)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tokensFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadGuard(dir); problem.CodeOf(err) != "api_tokens_unreadable" {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if _, err := LoadGuard(t.TempDir()); problem.CodeOf(err) != "api_tokens_unreadable" {
		t.Errorf("%v", err)
	}
	if _, err := Certificate(t.TempDir(), config.API{}); problem.CodeOf(err) != "api_certificate_unreadable" {
		t.Errorf("%v", err)
	}
}
