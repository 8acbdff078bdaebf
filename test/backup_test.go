package test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// awaitBackups waits until the backups of a managed instance are as a check wants them.
func awaitBackups(t *testing.T, s *linktest.Side, what string, check func(api.Backups) error) api.Backups {
	t.Helper()
	var b api.Backups
	pgtest.Await(t, linktest.Patience, what, func() (err error) {
		if b, err = s.Client.Backups(t.Context()); err != nil {
			return err
		}
		if err := check(b); err != nil {
			return fmt.Errorf("%w: problems %+v, tasks %+v", err, b.Problems, b.Tasks)
		}
		return nil
	})
	return b
}

// firstBackup waits for the first full backup.
func firstBackup(t *testing.T, s *linktest.Side) api.Backups {
	t.Helper()
	return awaitBackups(t, s, "the first full backup", func(b api.Backups) error {
		if slices.Contains(codesOf(b.Problems), "backup_failed") {
			t.Fatalf("%+v", b.Problems)
		}
		if len(b.Backups) == 0 || b.Backups[0].Type != "full" || len(b.Problems) > 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
}

// awaitTask waits until a backup or a verification has ended.
func awaitTask(t *testing.T, s *linktest.Side, task api.BackupTask, err error) api.BackupTask {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Await(t, linktest.Patience, "task "+task.Kind+" ends", func() error {
		if task, err = s.Client.BackupTask(t.Context(), task.Number); err != nil {
			return err
		}
		if task.EndedAt == nil {
			return fmt.Errorf("%+v", task)
		}
		return nil
	})
	return task
}

// backupNow makes a backup, which must succeed.
func backupNow(t *testing.T, s *linktest.Side, kind string) {
	t.Helper()
	task, err := s.Client.BackupNow(t.Context(), api.BackupRequest{Type: kind})
	if task = awaitTask(t, s, task, err); task.State != "done" {
		t.Fatalf("%+v: %v", task, task.Error)
	}
}

// codesOf lists the codes of problems.
func codesOf(problems []api.Problem) (codes []string) {
	for _, p := range problems {
		codes = append(codes, p.Code)
	}
	return codes
}

// awaitCode waits until a problem is shown, or is gone.
func awaitCode(t *testing.T, s *linktest.Side, code string, shown bool) {
	t.Helper()
	awaitBackups(t, s, fmt.Sprintf("%s is shown: %t", code, shown), func(b api.Backups) error {
		if slices.Contains(codesOf(b.Problems), code) != shown {
			return fmt.Errorf("%v", codesOf(b.Problems))
		}
		return nil
	})
}

// flip changes so many bytes, evenly apart, of the largest file below a directory, and returns what
// puts them back.
func flip(t *testing.T, dir string, count int64) (back func()) {
	t.Helper()
	var largest string
	var size int64
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := entry.Info(); err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil || size == 0 {
		t.Fatalf("nothing in %s: %v", dir, err)
	}
	f, err := os.OpenFile(largest, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	change := func(f *os.File) error {
		one := make([]byte, 1)
		for i := range count {
			at := size * (i + 1) / (count + 1)
			if _, err := f.ReadAt(one, at); err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte{one[0] ^ 0x10}, at); err != nil {
				return err
			}
		}
		return nil
	}
	if err := change(f); err != nil {
		t.Fatal(err)
	}
	return func() {
		f, err := os.OpenFile(largest, os.O_RDWR, 0)
		if err == nil {
			err = change(f) // a second time is as before
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// restoreByHand restores the instance to a moment with pgBackRest's own commands. Recovery is configured here: pgBackRest
// itself writes a restore_command that the apostrophe in the directory's name breaks.
func restoreByHand(t *testing.T, s *linktest.Side) {
	name := `Weird ""Name 100%`
	pgtest.Exec(t, s.DSN("postgres"), `CREATE DATABASE "`+strings.ReplaceAll(name, `"`, `""`)+`"`)
	dsn := s.DSN(name)
	pgtest.Exec(t, dsn, `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 1000) g`)
	backupNow(t, s, "diff")
	pgtest.Exec(t, dsn, `INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1001, 1500) g; UPDATE t SET v = 'changed' WHERE id <= 10`)
	want := pgtest.Query(t, dsn, `SELECT * FROM t ORDER BY id`)
	moment := pgtest.Query(t, dsn, `SELECT clock_timestamp() AT TIME ZONE 'UTC'`)[0][0]
	pgtest.Exec(t, dsn, `DELETE FROM t WHERE id > 700; UPDATE t SET v = 'later'`)
	awaitBackups(t, s, "the moment is restorable", func(b api.Backups) error {
		pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_switch_wal()`)
		if b.Until == nil || b.Until.UTC().Format("2006-01-02 15:04:05.000000") < moment {
			return fmt.Errorf("until %v, written %v", b.Until, moment)
		}
		return nil
	})

	programs := instance.Programs("pgbackrest")
	program, config := programs[len(programs)-1], "--config="+filepath.Join(s.Dir.Backup(), "pgbackrest.conf")
	quoted := func(word string) string {
		return "'" + strings.ReplaceAll(strings.ReplaceAll(word, "'", `'\''`), "%", "%%") + "'"
	}
	restored := &instance.Server{Dir: filepath.Join(pgtest.Dir(t), "restored"), Port: pgtest.FreePort(), DieWithParent: true,
		Settings: map[string]string{"archive_mode": "off", "max_logical_replication_workers": "0"}}
	restored.Settings["restore_command"] = quoted(program) + " " + quoted(config) + " --stanza=main --pg1-path=" + quoted(restored.DataDir()) + ` archive-get %f "%p"`
	restored.Settings["recovery_target_time"], restored.Settings["recovery_target_action"] = moment+"+00", "promote"
	if err := restored.MakeDir(restored.Dir); err != nil {
		t.Fatal(err)
	}
	out, said, err := restored.Work(t.Context(), nil, program, config, "--stanza=main",
		"--type=time", "--target="+moment+"+00", "--pg1-path="+restored.DataDir(), "--tablespace-map-all="+restored.Dir+"/tablespaces",
		"--archive-mode=off", "restore")
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, said)
	}
	if err := restored.MakeDir(filepath.Join(restored.Dir, "run")); err != nil {
		t.Fatal(err)
	}
	if err := restored.PutFile(filepath.Join(restored.DataDir(), "postgresql.auto.conf"), nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- restored.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if err := restored.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(restored.DSN(), " dbname=")
	dsn = before + " sslmode=disable dbname='" + name + "'"
	pgtest.Await(t, linktest.Patience, "the recovery ends", func() error {
		if rows, err := pgtest.Try(t.Context(), dsn, `SELECT pg_is_in_recovery()`); err != nil || rows[0][0] != "false" && rows[0][0] != "f" {
			return fmt.Errorf("%v, %v", rows, err)
		}
		return nil
	})
	got := pgtest.Query(t, dsn, `SELECT * FROM t ORDER BY id`)
	if len(want) != 1500 || len(got) != len(want) {
		t.Fatalf("%d rows of %d", len(got), len(want))
	}
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Fatalf("row %v is %v", want[i], got[i])
		}
	}
}

// TestBackups lets a managed instance make its backups, and breaks what they stand on, one thing after the other.
func TestBackups(t *testing.T) {
	t.Parallel()
	if !linktest.HaveBackups(t) {
		return
	}
	s := linktest.Managed(t, "b", nil)
	first := firstBackup(t, s)
	if first.Next == nil || first.Next.Type != "diff" || !first.Known {
		t.Errorf("%+v", first)
	}
	repository := first.Policy.Repository

	t.Run("secret", func(t *testing.T) {
		export, err := s.Client.ExportBackups(t.Context())
		if err != nil || len(export.Key) < 40 || export.Repository != repository {
			t.Fatalf("%+v, %v", export, err)
		}
		for _, name := range []string{"key", "pgbackrest.conf"} {
			if info, err := os.Stat(filepath.Join(s.Dir.Backup(), name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
	})
	t.Run("made", func(t *testing.T) {
		pgtest.Exec(t, s.DSN("postgres"), `CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 20000) g`)
		makeLures(t, s)
		makeUnreadable(t, s)
		backupNow(t, s, "diff")
		b, err := s.Client.Backups(t.Context())
		if err != nil || len(b.Backups) != 2 || b.Backups[1].Type != "diff" || !slices.Contains(b.Backups[1].Needs, b.Backups[0].Label) {
			t.Fatalf("%+v, %v", b.Backups, err)
		}
		task, err := s.Client.VerifyBackups(t.Context())
		task = awaitTask(t, s, task, err)
		if task.State != "done" || task.Verified == nil || task.Verified.Backups != 2 || task.Verified.Segments < 2 || len(task.Verified.Findings) > 0 {
			t.Fatalf("%+v %+v", task, task.Verified)
		}
	})
	t.Run("restored for a test", func(t *testing.T) {
		task, err := s.Client.TestBackups(t.Context())
		task = awaitTask(t, s, task, err)
		if r := task.Tested; r == nil || r.Databases < 3 || r.Rows < 320_000 || r.Tables < 100 || r.Until.IsZero() {
			t.Fatalf("%+v %+v %+v", task, task.Tested, task.Error)
		}
		b, err := s.Client.Backups(t.Context())
		if err != nil || b.Repositories[0].TestedAt == nil || task.Tested.Backup != b.Backups[1].Label {
			t.Errorf("%+v, %v", b.Repositories, err)
		}
		leavesNothing(t, s)
	})
	t.Run("until", func(t *testing.T) {
		before := pgtest.Query(t, s.DSN("postgres"), `SELECT clock_timestamp() AT TIME ZONE 'UTC' FROM pg_current_xact_id()`)
		awaitBackups(t, s, "what was written is restorable", func(b api.Backups) error {
			// Not a minute later.
			pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_switch_wal()`)
			if b.From == nil || b.Until == nil || b.Until.UTC().Format("2006-01-02 15:04:05.000000") < before[0][0] {
				return fmt.Errorf("until %v, written %v", b.Until, before)
			}
			return nil
		})
	})
	t.Run("restored by hand", func(t *testing.T) { restoreByHand(t, s) })
	t.Run("flipped byte", func(t *testing.T) {
		b, err := s.Client.Backups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		back := flip(t, filepath.Join(repository, "backup", "main", b.Backups[0].Label), 1)
		task, err := s.Client.VerifyBackups(t.Context())
		task = awaitTask(t, s, task, err)
		if task.Verified == nil || len(task.Verified.Findings) == 0 || task.Verified.Findings[0].Backup != b.Backups[0].Label {
			t.Fatalf("%+v %+v", task, task.Verified)
		}
		awaitCode(t, s, "backup_damaged", true)
		task, err = s.Client.TestBackups(t.Context())
		if task = awaitTask(t, s, task, err); task.Error == nil || task.Error.Code != "backup_test_failed" || task.Error.Hint == "" {
			t.Errorf("%+v %+v", task, task.Error)
		}
		awaitCode(t, s, "backup_test_failed", true)
		back()
		task, err = s.Client.TestBackups(t.Context())
		awaitTask(t, s, task, err)
		awaitCode(t, s, "backup_test_failed", false)
		task, err = s.Client.VerifyBackups(t.Context())
		awaitTask(t, s, task, err)
		awaitCode(t, s, "backup_damaged", false)
	})
	t.Run("missing log", func(t *testing.T) {
		for range 3 {
			pgtest.Exec(t, s.DSN("postgres"), `INSERT INTO t VALUES (0, 'x')`, `SELECT pg_switch_wal()`)
		}
		backupNow(t, s, "incr") // the log up to its end is in the repository
		segments, err := filepath.Glob(filepath.Join(repository, "archive/main/*/*/*-*"))
		if err != nil || len(segments) < 4 {
			t.Fatalf("%v, %v", segments, err)
		}
		slices.Sort(segments)
		away := segments[len(segments)-2]
		if err := os.Rename(away, filepath.Join(s.Dir.Path(), "away")); err != nil {
			t.Fatal(err)
		}
		task, err := s.Client.VerifyBackups(t.Context())
		task = awaitTask(t, s, task, err)
		want := "log is missing: " + filepath.Base(away)[:24]
		if task.Verified == nil || !slices.ContainsFunc(task.Verified.Findings, func(f api.BackupFinding) bool { return f.Text == want }) {
			t.Fatalf("%+v %+v", task, task.Verified)
		}
		if err := os.Rename(filepath.Join(s.Dir.Path(), "away"), away); err != nil {
			t.Fatal(err)
		}
		task, err = s.Client.VerifyBackups(t.Context())
		if task = awaitTask(t, s, task, err); task.Verified == nil || len(task.Verified.Findings) > 0 {
			t.Fatalf("%+v %+v", task, task.Verified)
		}
	})
	t.Run("missing log behind the backup", func(t *testing.T) { testOfHoles(t, s, repository) })
	t.Run("wrong and lost key", func(t *testing.T) {
		key := filepath.Join(s.Dir.Backup(), "key")
		text, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(key, []byte("another\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// The agent may have read the key before for the first of them.
		refused := func(code string) {
			t.Helper()
			pgtest.Await(t, linktest.Patience, "a backup fails with "+code, func() error {
				task, err := s.Client.BackupNow(t.Context(), api.BackupRequest{})
				if task = awaitTask(t, s, task, err); task.Error == nil || task.Error.Code != code {
					return fmt.Errorf("%+v", task)
				}
				return nil
			})
			awaitCode(t, s, code, true)
		}
		refused("backup_key_wrong")
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		refused("backup_key_lost")
		if _, err := os.Stat(key); err == nil {
			t.Fatal("another key was made")
		}
		if err := os.WriteFile(key, text, 0o600); err != nil {
			t.Fatal(err)
		}
		awaitCode(t, s, "backup_key_lost", false)
		awaitCode(t, s, "backup_key_wrong", false)
		backupNow(t, s, "incr")
	})
	t.Run("killed in a backup", func(t *testing.T) {
		task, err := s.Client.BackupNow(t.Context(), api.BackupRequest{Type: "full"})
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Await(t, linktest.Patience, "the backup is under way", func() error {
			if task, err = s.Client.BackupTask(t.Context(), task.Number); err == nil && task.State != "running" {
				err = fmt.Errorf("%+v", task)
			}
			return err
		})
		before := s.DSN("postgres")
		began := pgtest.Query(t, before, `SELECT pg_postmaster_start_time()`)
		s.Kill()
		s.Start()
		backupNow(t, s, "full") // what was begun is in nobody's way
		if now := pgtest.Query(t, before, `SELECT pg_postmaster_start_time()`); now[0][0] != began[0][0] {
			t.Error("the server was started anew")
		}
		task, err = s.Client.VerifyBackups(t.Context())
		if task = awaitTask(t, s, task, err); task.Verified == nil || len(task.Verified.Findings) > 0 {
			t.Fatalf("%+v %+v", task, task.Verified)
		}
	})
	t.Run("repository away", func(t *testing.T) {
		if err := os.Rename(repository, repository+"-away"); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, s.DSN("postgres"), `INSERT INTO t VALUES (0, 'x')`, `SELECT pg_switch_wal()`)
		awaitCode(t, s, "backup_repository_missing", true)
		if _, err := os.Stat(repository); err == nil {
			t.Fatal("an empty repository was made")
		}
		if err := os.Rename(repository+"-away", repository); err != nil {
			t.Fatal(err)
		}
		// A segment that is full wakes the archiver, which else tries again after a minute.
		pgtest.Exec(t, s.DSN("postgres"), `INSERT INTO t VALUES (0, 'x')`, `SELECT pg_switch_wal()`)
		awaitBackups(t, s, "no problem is left", func(b api.Backups) error {
			if len(b.Problems) > 0 {
				return fmt.Errorf("%v", codesOf(b.Problems))
			}
			return nil
		})
		backupNow(t, s, "full")
	})
}
