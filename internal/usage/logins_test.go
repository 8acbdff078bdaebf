package usage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// record is one of a server's, as PostgreSQL 15 writes it.
func record(at, role, database, pid, client, session, severity, state, message string) string {
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	return at + "," + quote(role) + "," + quote(database) + "," + pid + "," + quote(client) + "," + session + `,2,"authentication",2026-11-30 10:00:00 UTC,3/1,0,` + severity + "," + state + "," +
		quote(message) + `,,,,,,,,,"","client backend",,0` + "\n"
}

func TestLoginsAreRead(t *testing.T) {
	at := "2026-11-30 10:00:01.500 UTC"
	odd := `a" database="b`
	text := record(at, "app", "sales", "11", "10.0.0.1:5000", "a.1", "LOG", "00000", "connection authorized: user=app database=sales application_name=psql SSL enabled (protocol=TLSv1.3, cipher=X, bits=256)") +
		record(at, odd, "we\nird", "12", "[local]", "a.2", "LOG", "00000", "connection authorized: user="+odd+" database=we\nird") +
		record(at, "app", "sales", "13", "[::1]:5001", "a.3", "LOG", "00000", "connection authorized: user=app database=sales application_name=a b\nc") +
		record(at, "app", "sales", "14", "[local]", "a.4", "ERROR", "22P02", "invalid input syntax: connection authorized: user=app") +
		record(at, "app", "sales", "15", "[local]", "a.5", "FATAL", "53300", "too many connections for role") +
		record(at, "app", "sales", "16", "[local]", "a.6", "FATAL", "57P01", "terminating connection due to administrator command") +
		record(at, "app", "", "17", "[local]", "a.7", "LOG", "00000", "replication connection authorized: user=app") +
		"garbage,\n"
	got := parseLogins(text)
	want := []login{
		{id: "a.1", pid: 11, role: "app", database: "sales", application: "psql", client: "10.0.0.1"},
		{id: "a.2", pid: 12, role: odd, database: "we\nird", client: "[local]"},
		{id: "a.3", pid: 13, role: "app", database: "sales", application: "a b\nc", client: "[::1]"},
		{id: "a.5", pid: 15, role: "app", database: "sales", client: "[local]", refused: true},
	}
	if len(got) != len(want) {
		t.Fatalf("%d of %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		want[i].at = time.Date(2026, 11, 30, 10, 0, 1, 500e6, time.UTC)
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	// However the text is cut, every record is read once, and none before it is whole.
	dir := t.TempDir()
	file := filepath.Join(dir, "postgresql-Mon.csv")
	for step := 7; step < len(text); step += 211 {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		l := logins{dir: dir}
		n := 0
		for end := 0; end < len(text); {
			end = min(end+step, len(text))
			if err := os.WriteFile(file, []byte(text[:end]), 0o600); err != nil {
				t.Fatal(err)
			}
			found, err := l.next(time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC))
			if err != nil {
				t.Fatal(err)
			}
			n += len(found)
		}
		if n != len(want) {
			t.Errorf("in steps of %d bytes: %d logins", step, n)
		}
	}
	l := logins{dir: dir}
	if found, err := l.next(time.Date(2026, 11, 30, 10, 0, 2, 0, time.UTC)); err != nil || len(found) != 0 {
		t.Errorf("before the time asked for: %+v, %v", found, err)
	}
}

func FuzzParseLogins(f *testing.F) {
	f.Add(record("2026-11-30 10:00:01.500 UTC", "app", "sales", "11", "10.0.0.1:5000", "a.1", "LOG", "00000", "connection authorized: user=app database=sales"))
	f.Add(`"a` + "\n" + `","",`)
	f.Fuzz(func(t *testing.T, text string) {
		if n := wholeRecords([]byte(text)); n > len(text) || n > 0 && text[n-1] != '\n' {
			t.Errorf("%d", n)
		}
		parseLogins(text)
	})
}
