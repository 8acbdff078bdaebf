package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// The key of the backups may be the operator's, of a command. The agent keeps no copy of its own beside pgBackRest's configuration. Another key than the one with
// which the repository was made, and none, are told, and the log is archived on with the one of before.
func TestBackupsWithTheOperatorsKey(t *testing.T) {
	t.Parallel()
	if !linktest.HaveBackups(t) {
		return
	}
	service := filepath.Join(pgtest.Dir(t), "key service")
	const key = "the-operators-own-key-0123456789+/="
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(service, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(key + "\n")
	s := linktest.Managed(t, "b", func(c *config.Config) { c.Postgres.BackupKeyCommand = "cat '" + service + "'" })
	firstBackup(t, s)
	if _, err := os.Stat(filepath.Join(s.Dir.Backup(), "key")); !os.IsNotExist(err) {
		t.Errorf("a key was made beside the operator's: %v", err)
	}
	configuration := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(s.Dir.Backup(), "pgbackrest.conf"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if !strings.Contains(configuration(), "repo1-cipher-pass="+key+"\n") {
		t.Error("the repository is not encrypted with the operator's key")
	}
	export, err := s.Client.ExportBackups(t.Context())
	if err != nil || export.Key != key {
		t.Errorf("%+v, %v", export, err)
	}
	// archives waits until the server has archived what was written since.
	archives := func() {
		t.Helper()
		count := func() int {
			n, err := strconv.Atoi(pgtest.Query(t, s.DSN("postgres"), `SELECT archived_count::text FROM pg_stat_archiver`)[0][0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := count()
		pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_logical_emit_message(false, 'x', 'x')`, `SELECT pg_switch_wal()`)
		pgtest.Await(t, linktest.Patience, "the log is archived", func() error {
			if count() == before {
				return fmt.Errorf("%d files", before)
			}
			return nil
		})
	}
	archives()
	again := func(text, code string) {
		t.Helper()
		if text == "" {
			if err := os.Remove(service); err != nil {
				t.Fatal(err)
			}
		} else {
			put(text)
		}
		s.Kill()
		s.Start()
		awaitCode(t, s, code, true)
		if !strings.Contains(configuration(), "repo1-cipher-pass="+key+"\n") {
			t.Errorf("%s: pgBackRest was given another key", code)
		}
		archives()
	}
	again("another-key-than-before-0123456789", "backup_key_wrong")
	again("two lines are\nno key", "backup_key_invalid")
	again("", "backup_key_unavailable")
	// It is asked again by itself.
	put(key)
	awaitCode(t, s, "backup_key_unavailable", false)
	backupNow(t, s, "diff")
}
