package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Whatever of ours another role has locked, on either side, a planned failover is done all
// the same, or ends undone with the transaction named that was waited for: its process, its
// role and since when. Writers go on behind it.
func TestFailoverNamesWhoHasALock(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{FailoverPatience: 16 * time.Second}) // two of the locks hold it up for all of that
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.AppDSN("sales"), `CREATE TABLE t (id serial PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	primary, twin := p.A, p.B
	for _, c := range []struct {
		twin bool // it is locked there, and not at the primary
		lock string
	}{
		{false, `LOCK TABLE twinspan.signal IN ACCESS EXCLUSIVE MODE`},
		{false, `LOCK TABLE twinspan.link IN ACCESS EXCLUSIVE MODE`},
		{false, `LOCK TABLE twinspan.gate_pass IN ACCESS EXCLUSIVE MODE`},
		{false, `SELECT FROM twinspan.link FOR UPDATE`},
		{true, `LOCK TABLE twinspan.signal IN ACCESS EXCLUSIVE MODE`},
		{true, `LOCK TABLE twinspan.link IN ACCESS EXCLUSIVE MODE`},
		{true, `LOCK TABLE twinspan.version IN EXCLUSIVE MODE`},
		{true, `LOCK TABLE twinspan.gate_pass IN SHARE MODE`},
	} {
		side, where := primary, "the primary"
		if c.twin {
			side, where = twin, "the twin"
		}
		conn := pgtest.Conn(t, side.Server.DSN("sales"))
		pid := conn.PgConn().PID()
		if _, err := conn.Exec(t.Context(), `BEGIN; `+c.lock); err != nil {
			t.Fatalf("%s: %v", c.lock, err)
		}
		done, why := tryFailover(t, primary)
		if done {
			primary, twin = twin, primary
		} else if !strings.Contains(why, fmt.Sprintf("server process %d (role postgres", pid)) || !strings.Contains(why, "since ") {
			t.Errorf("%s at %s: undone without a name: %s", c.lock, where, why)
		}
		t.Logf("%s at %s: done %t, %s", c.lock, where, done, why)
		conn.Close(t.Context()) // which was ended, where it was a writer that did not finish
		if at := waitSettled(t, p, "sales"); at != primary {
			t.Fatalf("%s at %s: the primary is %s", c.lock, where, at.Name)
		}
		pgtest.Exec(t, primary.Server.AppDSN("sales"), `INSERT INTO t DEFAULT VALUES`)
	}
	waitEqual(t, p, "sales", "sales")
}

// tryFailover has the sides of link sales change places, and says whether they did, or why
// they did not.
func tryFailover(t *testing.T, at *linktest.Side) (done bool, why string) {
	t.Helper()
	if _, err := at.Client.Failover(t.Context(), "sales", api.FailoverRequest{DrainSeconds: 1}); err != nil {
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Hint == "" {
			t.Fatalf("failover: %v", err)
		}
		return false, refused.Text
	}
	var f api.FailoverProgress
	pgtest.Eventually(t, linktest.Patience, func() (err error) {
		if f, err = at.Client.FailoverProgress(t.Context(), "sales"); err == nil && f.State == api.FailoverRunning {
			err = fmt.Errorf("under way: %+v", f.Steps)
		}
		return err
	})
	if f.State == api.FailoverUndone && (f.Problem == nil || f.Problem.Hint == "") {
		t.Fatalf("undone without a remedy: %+v", f.Problem)
	}
	if f.Problem != nil {
		why = f.Problem.Title
	}
	return f.State == api.FailoverDone, why
}
