//go:build backup

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// TestStoresKilled kills the agent, or pgBackRest, in each phase of a backup: the next one is whole, and nothing works on.
func TestStoresKilled(t *testing.T) {
	s := linktest.Managed(t, "b", nil)
	first := firstBackup(t, s)
	pgtest.Exec(t, s.DSN("postgres"), `CREATE TABLE t AS SELECT g AS id, gen_random_uuid()::text AS v FROM generate_series(1, 300000) g`)
	sets := filepath.Join(first.Policy.Repository, "backup/main")
	labels := func() []string {
		all, err := filepath.Glob(filepath.Join(sets, "20*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, phase := range []struct {
		name    string
		reached func(before []string) bool
	}{
		{"begun", func([]string) bool { return len(programs(t, s)) > 0 }},
		{"copying", func(before []string) bool { return len(labels()) > len(before) }},
		{"complete", func(before []string) bool {
			all := labels()
			_, err := os.Stat(filepath.Join(all[len(all)-1], "backup.manifest"))
			return len(all) > len(before) && err == nil
		}},
	} {
		for _, whom := range []string{"agent", "pgBackRest"} {
			before := labels()
			task, err := s.Client.BackupNow(t.Context(), api.BackupRequest{Type: "full"})
			if err != nil {
				t.Fatal(err)
			}
			pgtest.Await(t, linktest.Patience, "the backup is "+phase.name, func() error {
				now, err := s.Client.BackupTask(t.Context(), task.Number)
				if err == nil && now.EndedAt == nil && !phase.reached(before) { // one that has ended was too quick
					err = fmt.Errorf("it is not")
				}
				return err
			})
			if whom == "agent" {
				s.Kill()
				s.Start()
			} else {
				for _, pid := range programs(t, s) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
				awaitTask(t, s, task, nil)
			}
			pgtest.Await(t, linktest.Patience, "nothing works on: "+phase.name+", "+whom, func() error {
				b, err := s.Client.Backups(t.Context())
				if err == nil && !b.Known {
					err = fmt.Errorf("the repository has not answered")
				}
				return err
			})
			backupNow(t, s, "full")
			all := labels()
			if _, err := os.Stat(filepath.Join(all[len(all)-1], "backup.manifest")); err != nil {
				t.Errorf("%s, %s: the last backup is not whole: %v", phase.name, whom, err)
			}
			task, err = s.Client.VerifyBackups(t.Context())
			if task = awaitTask(t, s, task, err); task.State != "done" || len(task.Verified.Findings) > 0 {
				t.Errorf("%s, %s: %+v, %+v", phase.name, whom, task, task.Verified)
			}
		}
	}
}

// programs are the processes of pgBackRest that work for an agent, archiving left out.
func programs(t *testing.T, s *linktest.Side) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		words := strings.Split(string(text), "\x00")
		if err != nil || !slices.Contains(words, "backup") || !strings.Contains(string(text), s.Dir.Backup()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestStoresOfAnotherMajor restores a managed instance's database of the newest version to the self-managed server of a peer, and a
// dropped one on the instance itself.
func TestStoresOfAnotherMajor(t *testing.T) {
	for _, major := range []int{17, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			binaries, err := instance.FindBinaries(major)
			if err != nil {
				t.Fatal(err)
			}
			self := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{pgtest.WithMajor(major)}}).A
			t.Setenv(instance.BinariesEnv, binaries.Dir)
			s := linktest.Managed(t, "m", nil)
			self.Pair(t, s)
			pgtest.Exec(t, s.DSN("postgres"), `CREATE DATABASE sales`)
			pgtest.Exec(t, s.DSN("sales"), copySchema)
			firstBackup(t, s)
			backupNow(t, s, "diff")
			pgtest.Exec(t, s.DSN("sales"), `INSERT INTO ledger0 VALUES (1, 1, 'behind the backup')`, `CREATE TABLE gone (id int)`)
			at := now(t, s)
			pgtest.Exec(t, s.DSN("sales"), `DROP TABLE gone`, `DELETE FROM still`)
			if _, err := self.Client.GrantPeer(t.Context(), "m", api.Grant{Database: "sales back", Direction: "to-here", Operations: []string{"link"}}); err != nil {
				t.Fatal(err)
			}
			v := restored(t, s, api.RestoreDatabase{Database: "sales", Name: "sales back", At: at, Peer: "a"})
			mustBeCopied(t, v)
			dsn := self.Server.DSN("sales back")
			if got := pgtest.Query(t, dsn, `SELECT (SELECT count(*) FROM still) || ' ' || (SELECT count(*) FROM ledger0) || ' ' || current_setting('server_version_num')::int / 10000 FROM (SELECT count(*) FROM gone) AS g`)[0][0]; got != fmt.Sprintf("20000 1 %d", major) {
				t.Errorf("%s", got)
			}
			pgtest.Exec(t, dsn, `UPDATE still SET note = 'mine' WHERE id = 1`)
			leavesNothing(t, s)
		})
	}
}
