package instance

import (
	"strings"
	"testing"
)

func TestDiagnoseKnowsWhatServersSay(t *testing.T) {
	s := &Server{Dir: "/x", Port: 5433}
	for text, code := range map[string]string{
		`LOG:  could not bind IPv4 address "127.0.0.1": Address already in use
HINT:  Is another postmaster already running on port 5433? If not, wait a few seconds and retry.
FATAL:  could not create any TCP/IP sockets`: "port_in_use",
		`LOG:  could not bind IPv4 address "10.9.9.9": Cannot assign requested address
FATAL:  could not create any TCP/IP sockets`: "listen_address_invalid",
		`PANIC:  could not write to file "pg_wal/xlogtemp.34": No space left on device`: "disk_full",
		`FATAL:  database files are incompatible with server
DETAIL:  The database cluster was initialized with CATALOG_VERSION_NO 202107181, but the server was compiled with CATALOG_VERSION_NO 202209061.`: "data_version_mismatch",
		`FATAL:  could not map anonymous shared memory: Cannot allocate memory`:                             "memory_short",
		`FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use`:                            "data_dir_in_use",
		`FATAL:  lock file "postmaster.pid" already exists`:                                                 "data_dir_in_use",
		`LOG:  unrecognized configuration parameter "wal_levels" in file "/x/data/twinspan.conf" line 9`:    "settings_invalid",
		`FATAL:  data directory "/x/data" has invalid permissions`:                                          "data_dir_permissions",
		`PANIC:  could not locate a valid checkpoint record`:                                                "data_damaged",
		`LOG:  database system was shut down at 2024-01-01 00:00:00 UTC`:                                    "",
		`ERROR:  duplicate key value violates unique constraint "a_pkey"` + "\nDETAIL: Key (i)=(1) exists.": "",
	} {
		p := diagnose(text, s)
		if (p == nil) != (code == "") || p != nil && p.Code != code {
			t.Errorf("%.60s: got %v, want %q", text, p, code)
		}
		if p != nil && (p.Hint == "" || p.Kind == "") {
			t.Errorf("%s has no hint or kind", p.Code)
		}
	}
}

func TestLastLineLeavesValuesOut(t *testing.T) {
	text := "2024 [1] PANIC:  could not write\n2024 [1] DETAIL:  Failed process was running: INSERT INTO a VALUES ('secret')\n"
	if got := lastLine(text, "PANIC:"); got != "PANIC:  could not write" {
		t.Errorf("got %q", got)
	}
	if got := lastLine("STATEMENT: secret", "PANIC:"); strings.Contains(got, "secret") {
		t.Errorf("got %q", got)
	}
}

func TestConfigQuotesSettings(t *testing.T) {
	s := &Server{Dir: "/x", Binaries: Binaries{Dir: "/b", Major: 18}, Settings: map[string]string{"archive_command": `cp '%p' C:\a`}}
	text, err := s.config()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`archive_command = 'cp ''%p'' C:\\a'`, "wal_level = 'logical'", "max_active_replication_origins = '120'"} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for _, name := range []string{"a b", "a=b\nc", "A", ""} {
		s.Settings = map[string]string{name: "x"}
		if _, err := s.config(); err == nil {
			t.Errorf("the name %q went through", name)
		}
	}
	s.Settings = map[string]string{"a": "x\ny"}
	if _, err := s.config(); err == nil {
		t.Error("a line end went through")
	}
}

func TestSharedBuffers(t *testing.T) {
	for memory, want := range map[uint64]uint64{0: 128 << 20, 4 << 30: 512 << 20, 512 << 30: 1 << 30} {
		if got := sharedBuffers(memory); got != want {
			t.Errorf("%d gives %d, want %d", memory, got, want)
		}
	}
}

func FuzzParsePIDFile(f *testing.F) {
	f.Add("123\n/data\n1700000000\n5432\n/run\n127.0.0.1\n 1 2\nready   \n")
	f.Add("-7\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if got := parsePIDFile(text); got.pid < 0 && got.pid != -got.pid {
			t.Errorf("pid %d", got.pid)
		}
	})
}

func TestParsePIDFile(t *testing.T) {
	got := parsePIDFile("123\n/data\n1700000000\n5432\n/run\n127.0.0.1\n 1 2\nready   \n")
	if want := (pidFile{123, 5432, "/run", "127.0.0.1", "ready"}); got != want || !got.accepts() {
		t.Errorf("got %+v", got)
	}
	if got := parsePIDFile("-7\n"); got.pid != 7 || got.accepts() {
		t.Errorf("got %+v", got)
	}
}
