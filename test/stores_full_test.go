//go:build backup

package test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// smallDisk is a file system with room for so many bytes. It takes the right to mount one.
func smallDisk(t *testing.T, bytes int) (dir string, ok bool) {
	t.Helper()
	dir = pgtest.Dir(t)
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0777", bytes))
	if errors.Is(err, syscall.EPERM) {
		t.Log("nothing was tested: only root may mount a file system")
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, true
}

// fill writes a file until its disk takes no more.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 10} {
		for {
			if _, err = f.Write(make([]byte, size)); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
}

// TestStoresFull fills the disk of the only repository: that is named, the server keeps its log, a backup fails, and once there is
// room everything goes on by itself and every moment of the time between can be restored.
func TestStoresFull(t *testing.T) {
	disk, ok := smallDisk(t, 96<<20)
	if !ok {
		return
	}
	s := linktest.Managed(t, "b", nil)
	firstBackup(t, s)
	place := filepath.Join(disk, "repository")
	if _, err := s.Client.SetBackupPolicy(t.Context(), api.SetBackupPolicy{Repository: &place}); err != nil {
		t.Fatal(err)
	}
	awaitBackups(t, s, "a full backup on the small disk", func(b api.Backups) error {
		if r, sets := repositoryAt(b, place); !r.Known || sets == 0 || len(b.Problems) > 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	pgtest.Exec(t, s.DSN("postgres"), `CREATE DATABASE sales`)
	// A database can be restored from the whole second behind its making on.
	pgtest.Exec(t, s.DSN("sales"), `CREATE TABLE t (id int PRIMARY KEY, v text)`, `SELECT pg_sleep(1)`)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)

	moments := map[int]api.RestoreDatabase{}
	const rounds = 6
	for i := range rounds {
		// What does not compress.
		pgtest.Exec(t, s.DSN("sales"), fmt.Sprintf(`INSERT INTO t SELECT %d + g, gen_random_uuid()::text FROM generate_series(1, 5000) g`, i*5000), `SELECT pg_switch_wal()`)
		moments[(i+1)*5000] = api.RestoreDatabase{Database: "sales", Name: fmt.Sprintf("after %d", i), At: now(t, s)}
	}
	b := awaitBackups(t, s, "the full disk is named", func(b api.Backups) error {
		if !slices.Contains(codesOf(b.Problems), "backup_repository_full") {
			return errors.New("it is not")
		}
		return nil
	})
	for _, p := range b.Problems {
		if p.Code == "backup_repository_full" && (p.Subject != place || p.Hint == "") {
			t.Errorf("%+v", p)
		}
	}
	task, err := s.Client.BackupNow(t.Context(), api.BackupRequest{Type: "full"})
	if task = awaitTask(t, s, task, err); task.Error == nil || task.Error.Code != "backup_repository_full" || task.Error.Hint == "" {
		t.Errorf("a backup without room: %+v, %+v", task, task.Error)
	}
	waiting := func() string {
		return pgtest.Query(t, s.DSN("postgres"), `SELECT count(*)::text FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'`)[0][0]
	}
	if n := waiting(); n == "0" {
		t.Error("the server keeps nothing of its log")
	}
	// An agent that begins anew finds the same.
	s.Kill()
	s.Start()
	awaitCode(t, s, "backup_repository_full", true)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	// A segment that is full wakes the archiver, which else tries again after a minute.
	pgtest.Exec(t, s.DSN("sales"), `SELECT pg_current_xact_id()`, `SELECT pg_switch_wal()`)
	awaitBackups(t, s, "the log is in the repository", func(b api.Backups) error {
		if n := waiting(); len(b.Problems) > 0 || n != "0" {
			return fmt.Errorf("%s segments wait", n)
		}
		return nil
	})
	backupNow(t, s, "diff")
	task, err = s.Client.VerifyBackups(t.Context())
	if task = awaitTask(t, s, task, err); task.State != "done" || len(task.Verified.Findings) > 0 {
		t.Errorf("%+v, %+v", task, task.Verified)
	}
	for rows, in := range moments {
		if rows != 5000 && rows != (rounds-1)*5000 { // each takes its time
			continue
		}
		mustBeCopied(t, restored(t, s, in))
		if n := pgtest.Query(t, s.DSN(in.Name), `SELECT count(*)::text FROM t`)[0][0]; n != fmt.Sprint(rows) {
			t.Errorf("at %s there are %s rows of %d", in.At, n, rows)
		}
	}
	leavesNothing(t, s)
}
