//go:build backup

package test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// TestStoresAcrossFailover restores a linked database out of the backups of both instances, each of which was primary and secondary, to moments before and
// after the sides have changed places. Of other majors the tests have servers alone, without pg_waldump, by which a restore finds its end.
func TestStoresAcrossFailover(t *testing.T) {
	pair := &linktest.Pair{A: linktest.Managed(t, "a", nil), B: linktest.Managed(t, "b", nil)}
	pair.A.Pair(t, pair.B)
	pgtest.Exec(t, pair.A.DSN("postgres"), `CREATE DATABASE sales`)
	pgtest.Exec(t, pair.A.DSN("sales"), `CREATE TABLE t (id int PRIMARY KEY, v text)`)
	if _, err := pair.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "sales", Peer: "b"}); err != nil {
		t.Fatal(err)
	}
	pair.WaitPhase(t, "sales", api.Replicating)
	for _, s := range []*linktest.Side{pair.A, pair.B} {
		firstBackup(t, s)
		backupNow(t, s, "diff") // the twin is in it
		pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_sleep(1)`)
	}
	rows := 0
	moments := map[int]api.RestoreDatabase{}
	write := func(s, twin *linktest.Side) {
		t.Helper()
		pgtest.Exec(t, s.DSN("sales"), fmt.Sprintf(`INSERT INTO t SELECT %d + g, md5(g::text) FROM generate_series(1, 1000) g`, rows))
		rows += 1000
		moments[rows] = api.RestoreDatabase{Database: "sales", Name: fmt.Sprintf("sales %d", rows), At: now(t, s)}
		pgtest.Await(t, linktest.Patience, "the twin has it", func() error {
			if n := pgtest.Query(t, twin.DSN("sales"), `SELECT count(*)::text FROM t`)[0][0]; n != strconv.Itoa(rows) {
				return fmt.Errorf("%s rows of %d", n, rows)
			}
			return nil
		})
	}
	primary, twin := pair.A, pair.B
	for range 3 {
		write(primary, twin)
		if f := failOver(t, twin, "sales", api.FailoverRequest{}); f.State != api.FailoverDone {
			t.Fatalf("%+v", f)
		}
		primary, twin = twin, primary
		pair.WaitPhase(t, "sales", api.Replicating)
		write(primary, twin)
	}
	for _, s := range []*linktest.Side{pair.A, pair.B} {
		for at, in := range moments {
			v := restored(t, s, in)
			mustBeCopied(t, v)
			if n := pgtest.Query(t, s.DSN(in.Name), `SELECT count(*)::text FROM t`)[0][0]; n != strconv.Itoa(at) {
				t.Errorf("of %s, at %s, there are %s rows of %d: %+v", s.Name, in.At, n, at, v.Restore)
			}
		}
		backupNow(t, s, "diff")
		task, err := s.Client.TestBackups(t.Context())
		if task = awaitTask(t, s, task, err); task.Tested == nil {
			t.Errorf("%+v: %+v", task, task.Error)
		}
		leavesNothing(t, s)
	}
}
