//go:build ha

package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// awaitHandedOver waits until the agent of a new leader keeps the backups that were there before.
func awaitHandedOver(t *testing.T, leader *linktest.Member, label string) {
	t.Helper()
	awaitBackups(t, leader.Side, "the new leader keeps the backups", func(b api.Backups) error {
		if !b.Known || len(b.Problems) > 0 || !slices.ContainsFunc(b.Backups, func(o api.Backup) bool { return o.Label == label }) {
			return fmt.Errorf("%d backups", len(b.Backups))
		}
		return nil
	})
}

// An instance of three members keeps backups where all reach them. A leader is lost whose log was not archived, twice; what was committed before, between and
// afterwards is restored to each moment, and a database that was dropped after the change is back.
func TestMembersBackups(t *testing.T) {
	if !linktest.HaveBackups(t) {
		t.FailNow()
	}
	g := linktest.Members(t, "a", 3)
	leader := g.Leader()
	awaitCode(t, leader.Side, "backup_place_missing", true)
	for _, m := range g.Members {
		if _, err := m.Client.Backups(t.Context()); m != leader && code(err) != "member_stands_by" {
			t.Errorf("%s, which stands by: %v", m.Called(), err)
		}
	}
	if _, err := leader.Client.BackupNow(t.Context(), api.BackupRequest{}); code(err) != "backup_place_missing" {
		t.Errorf("a backup without a place: %v", err)
	}
	place := filepath.Join(pgtest.Dir(t), "repository")
	if _, err := leader.Client.SetBackupPolicy(t.Context(), api.SetBackupPolicy{Repository: &place}); err != nil {
		t.Fatal(err)
	}
	first := firstBackup(t, leader.Side).Backups[0]
	for _, name := range []string{"sales", "gone"} {
		pgtest.Exec(t, g.DSN("postgres"), `CREATE DATABASE `+name)
		pgtest.Exec(t, g.DSN(name), `CREATE TABLE t (id int PRIMARY KEY, v text)`)
	}
	rows := 0
	moments := map[int]api.RestoreDatabase{}
	add := func() {
		t.Helper()
		pgtest.Exec(t, g.DSN("sales"), fmt.Sprintf(`INSERT INTO t SELECT %d + g, md5(g::text) FROM generate_series(1, 1000) g`, rows))
		rows += 1000
	}
	// In the last segment that was closed, in the one that was not, and on the next timeline.
	note := func() {
		t.Helper()
		moments[rows] = api.RestoreDatabase{Database: "sales", Name: fmt.Sprintf("sales_%d", rows), At: now(t, leader.Side)}
	}
	if _, err := leader.Client.RestorableDatabases(t.Context()); err != nil { // they are known now
		t.Fatal(err)
	}
	add()
	backupNow(t, leader.Side, "diff")
	for range 2 {
		// Its archiver does nothing any more, and the standbys take what they receive for archived.
		archiver, err := strconv.Atoi(pgtest.Query(t, leader.DSN("postgres"), `SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'archiver'`)[0][0])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(archiver, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			add()
			pgtest.Exec(t, g.DSN("sales"), `SELECT pg_switch_wal()`)
		}
		note()
		add()
		note()
		lost := leader
		lost.SignalAll(syscall.SIGKILL)
		// It was restoring.
		if err := os.MkdirAll(filepath.Join(lost.Dir.Restores(), "killed", "data"), 0o755); err != nil {
			t.Fatal(err)
		}
		leader = g.Leader(lost)
		awaitHandedOver(t, leader, first.Label)
		add()
		note()
		lost.Relaunch()
		g.AwaitWhole()
		leader = g.Leader()
	}
	pgtest.Exec(t, g.DSN("gone"), `INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1500) g`)
	pgtest.Exec(t, g.DSN("postgres"), `DROP DATABASE gone`)
	pgtest.Await(t, linktest.Patience, "the DROP is known", func() error {
		list, err := leader.Client.RestorableDatabases(t.Context())
		if err == nil && !slices.ContainsFunc(list, func(d api.RestorableDatabase) bool { return d.Name == "gone" && d.Dropped }) {
			err = errors.New("it is not")
		}
		return err
	})
	for at, in := range moments {
		mustBeCopied(t, restored(t, leader.Side, in))
		if n := pgtest.Query(t, leader.DSN(in.Name), `SELECT count(*)::text FROM t`)[0][0]; n != strconv.Itoa(at) {
			t.Errorf("at %s there are %s rows of %d", in.At, n, at)
		}
	}
	mustBeCopied(t, restored(t, leader.Side, api.RestoreDatabase{Database: "gone", Name: "back", Deleted: true}))
	if n := pgtest.Query(t, leader.DSN("back"), `SELECT count(*)::text FROM t`)[0][0]; n != "1500" {
		t.Errorf("of the dropped database %s rows are back", n)
	}
	backupNow(t, leader.Side, "diff")
	task, err := leader.Client.VerifyBackups(t.Context())
	if task = awaitTask(t, leader.Side, task, err); task.State != "done" || len(task.Verified.Findings) > 0 {
		t.Errorf("%+v, %+v", task, task.Verified)
	}
	task, err = leader.Client.TestBackups(t.Context())
	if task = awaitTask(t, leader.Side, task, err); task.Tested == nil {
		t.Errorf("restored for a test: %+v, %+v", task, task.Error)
	}
	b, err := leader.Client.Backups(t.Context())
	if err != nil || slices.ContainsFunc(b.Backups[1:], func(o api.Backup) bool { return o.Type == "full" }) {
		t.Errorf("a full backup was made anew: %+v, %v", b.Backups, err)
	}
	for _, m := range g.Members {
		leavesNothing(t, m.Side)
	}
}
