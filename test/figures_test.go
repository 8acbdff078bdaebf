package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/terminal"
)

// TestFiguresAreRightOrUnknown stages situations in which one side cannot know how the
// other stands. What a side shows is what the servers themselves say, and what it cannot
// know it does not show, and calls nothing healthy of which it does not know.
func TestFiguresAreRightOrUnknown(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerB: []pgtest.Option{
		pgtest.WithSetting("max_wal_size", "32MB"), pgtest.WithSetting("min_wal_size", "32MB")}}) // for the slot that is lost
	p.A.Server.CreateDatabase(t, "sales")
	primary, twin := p.A, p.B
	a, b := func() string { return primary.Server.DSN("sales") }, func() string { return twin.Server.DSN("sales") }
	pgtest.Exec(t, a(), `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)

	read := func(dsn, sql string) lsn.LSN {
		t.Helper()
		rows := pgtest.Query(t, dsn, sql)
		if len(rows) == 0 {
			t.Fatalf("nothing: %s", sql)
		}
		position, err := lsn.Parse(rows[0][0])
		if err != nil {
			t.Fatal(err)
		}
		return position
	}
	written := func() lsn.LSN { return read(a(), `SELECT pg_current_wal_lsn()`) }
	confirmed := func() lsn.LSN {
		return read(a(), `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name LIKE 'twinspan%' AND NOT temporary`)
	}
	applied := func() lsn.LSN {
		return read(b(), `SELECT pg_replication_origin_progress(roname, true) FROM pg_replication_origin WHERE roname LIKE 'twinspan%'`)
	}

	// shows waits until a side shows what is expected; nil is nothing.
	type figures struct {
		written, applied, confirmed func() lsn.LSN
		behind                      func() lsn.LSN // the lag is from here to what is written
		seconds                     bool           // are known
		heard                       bool
	}
	shows := func(stage string, side *linktest.Side, want figures) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), "sales")
			if err != nil {
				return err
			}
			where := fmt.Sprintf("%s, %s: %+v, lag %v %v, %s, heard %v, problems %+v", stage, side.Name, l.Position, l.Lag.Bytes, l.Lag.Seconds, l.Health, l.Peer.HeardAt, l.Problems)
			for _, f := range []struct {
				name, got string
				want      func() lsn.LSN
			}{{"written", l.Position.Written, want.written}, {"applied", l.Position.Applied, want.applied}, {"confirmed", l.Position.Confirmed, want.confirmed}} {
				expected := ""
				if f.want != nil {
					expected = f.want().String()
				}
				if f.got != expected {
					return fmt.Errorf("%s is not %q; %s", f.name, expected, where)
				}
			}
			if want.behind == nil != (l.Lag.Bytes == nil) || want.behind != nil && *l.Lag.Bytes != want.behind().Behind(want.written()) {
				return fmt.Errorf("bytes; %s", where)
			}
			if want.seconds != (l.Lag.Seconds != nil) || want.heard != (l.Peer.HeardAt != nil) {
				return fmt.Errorf("seconds or the time of the news; %s", where)
			}
			if l.Health == api.Healthy && l.Lag.Seconds == nil {
				return fmt.Errorf("healthy, and it is not known how far behind; %s", where)
			}
			if err := shownAlike(t, side, l); err != nil {
				return fmt.Errorf("%w; %s", err, where)
			}
			series := metricsOf(t, side)
			for name, known := range map[string]bool{"lag_bytes": want.behind != nil, "lag_seconds": l.Lag.AsOf != nil, "peer_heard_timestamp_seconds": want.heard} {
				if strings.Contains(series, "\ntwinspan_link_"+name+"{") != known {
					return fmt.Errorf("the metrics have %s, or lack it; %s", name, where)
				}
			}
			return nil
		})
	}
	// What is confirmed is what is durable on the twin; the slot may not have been told of it.
	both := figures{written: written, applied: applied, confirmed: applied, behind: applied, seconds: true, heard: true}

	shows("just created", p.A, both)
	shows("just created", p.B, both)

	if _, err := p.A.Client.Suspend(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Suspended)
	pgtest.Exec(t, a(), `INSERT INTO t SELECT generate_series(1, 1000)`)
	shows("suspended", p.A, both)
	shows("suspended", p.B, both)

	p.B.Kill()
	pgtest.Exec(t, a(), `INSERT INTO t SELECT generate_series(1001, 2000)`)
	shows("the twin's agent is away", p.A, figures{written: written, confirmed: confirmed, behind: confirmed, heard: true})

	p.A.Stop()
	p.A.Start()
	shows("the primary's agent has heard nothing", p.A, figures{written: written, confirmed: confirmed, behind: confirmed})

	p.A.Stop()
	p.B.Start()
	shows("the twin's agent has heard nothing", p.B, figures{applied: applied, confirmed: applied})

	p.A.Start()
	if _, err := p.B.Client.Resume(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	p.WaitEqual(t, "sales", "sales")
	shows("resumed", p.A, both)
	shows("resumed", p.B, both)

	p.A.Server.Stop() // which writes log still
	shows("the primary's server is gone", p.B, figures{applied: applied, confirmed: applied, heard: true})
	p.A.Server.Restart()
	pgtest.Exec(t, a(), `INSERT INTO t VALUES (0)`)
	p.WaitEqual(t, "sales", "sales")
	shows("the primary's server is back", p.A, both)
	shows("the primary's server is back", p.B, both)

	lock := pgtest.Conn(t, b())
	if _, err := lock.Exec(t.Context(), `BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a(), `INSERT INTO t SELECT generate_series(2001, 3000)`)
	shows("behind in applying", p.A, both)
	shows("behind in applying", p.B, both)
	if _, err := lock.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	p.WaitEqual(t, "sales", "sales")

	sender, err := strconv.Atoi(pgtest.Query(t, a(), `SELECT active_pid::text FROM pg_replication_slots WHERE slot_name LIKE 'twinspan%' AND NOT temporary`)[0][0])
	if err == nil {
		err = syscall.Kill(sender, syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a(), `INSERT INTO t SELECT generate_series(3001, 4000)`)
	shows("behind in receiving", p.A, both)
	shows("behind in receiving", p.B, both)
	if err := syscall.Kill(sender, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.WaitEqual(t, "sales", "sales")

	if _, err := p.A.Client.Failover(t.Context(), "sales", api.FailoverRequest{}); err != nil {
		t.Fatal(err)
	}
	if waitSettled(t, p, "sales") != p.B {
		t.Fatal("the sides have not changed places")
	}
	primary, twin = p.B, p.A
	pgtest.Exec(t, a(), `INSERT INTO t VALUES (-1)`)
	waitEqual(t, p, "sales", "sales")
	shows("after a failover", p.A, both)
	shows("after a failover", p.B, both)

	p.A.Stop()
	pgtest.Exec(t, a(), `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`, `SELECT pg_reload_conf()`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		pgtest.Exec(t, a(), `INSERT INTO t SELECT generate_series(10001, 210000)`, `DELETE FROM t WHERE id > 10000`, `CHECKPOINT`)
		if left := pgtest.Query(t, a(), `SELECT wal_status FROM pg_replication_slots WHERE slot_name LIKE 'twinspan%' AND NOT temporary AND wal_status <> 'lost'`); len(left) > 0 {
			return fmt.Errorf("the slot is %v", left)
		}
		return nil
	})
	broken := func(side *linktest.Side) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			if l, err := side.Client.Link(t.Context(), "sales"); err != nil || l.Phase != api.Broken || l.Health != api.Unhealthy {
				return fmt.Errorf("%s, %s, problems %+v, %v", l.Phase, l.Health, l.Problems, err)
			}
			return hasProblem(t, side, "sales", "slot_lost")
		})
	}
	broken(p.B)
	shows("the slot is lost and the twin's agent away", p.B, figures{written: written, confirmed: confirmed, behind: confirmed, heard: true})
	p.A.Start()
	broken(p.A)
	aged := both // what was written while the twin's agent was away is of no known age
	aged.seconds = false
	shows("the slot is lost", p.A, aged)
	shows("the slot is lost", p.B, aged)
	p.B.Stop()
	p.A.Stop()
	p.A.Start()
	shows("the slot is lost, the twin's agent has heard nothing", p.A, figures{applied: applied, confirmed: applied})
}

// shownAlike says whether the command line's texts have the figures of the API, and say
// unknown where that has none.
func shownAlike(t *testing.T, side *linktest.Side, l api.Link) error {
	t.Helper()
	text := commandLine(t, side, "link", "show", l.Name)
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	known := func(value string) string {
		if value == "" {
			return "unknown"
		}
		return value
	}
	for name, want := range map[string]string{"written": l.Position.Written, "sent": l.Position.Sent, "received": l.Position.Received, "applied": l.Position.Applied, "confirmed": l.Position.Confirmed} {
		if got, _, _ := strings.Cut(fields[name], " "); got != known(want) {
			return fmt.Errorf("link show has %s %q, the API %q", name, got, want)
		}
	}
	seconds, bytes, _ := strings.Cut(fields["lag"], ", ")
	if want := terminal.Known(l.Lag.Bytes, terminal.Size); bytes != want {
		return fmt.Errorf("link show has a lag of %q, the API of %s", bytes, want)
	}
	if (seconds == "unknown") != (l.Lag.Seconds == nil) {
		return fmt.Errorf("link show has a lag of %q, the API of %v", seconds, l.Lag.Seconds)
	}
	if streams := l.Rates != nil; streams != strings.Contains(fields["rates"], "transactions/s") {
		return fmt.Errorf("link show has rates %q, the API %+v", fields["rates"], l.Rates)
	}
	if heard := l.Peer.HeardAt != nil; !heard && !l.Peer.Connected && !strings.Contains(text, "not since this agent was started") {
		return fmt.Errorf("link show does not say that the other side was not heard: %s", text)
	}
	// The same in a table, where there is room for less, and in a line.
	list := strings.Fields(strings.Split(commandLine(t, side, "link", "list"), "\n")[1])
	if l.Phase == api.Replicating || l.Phase == api.CatchingUp || l.Phase == api.Suspended {
		if unknown := slices.Contains(list, "unknown"); unknown != (l.Lag.Bytes == nil || l.Lag.Seconds == nil || l.Rates == nil && l.Phase != api.Suspended) {
			return fmt.Errorf("link list has %v", list)
		}
	}
	if !slices.Contains(list, string(l.Health)) {
		return fmt.Errorf("link list has %v, the API %s", list, l.Health)
	}
	return nil
}

// commandLine is what a command prints that asks an agent.
func commandLine(t *testing.T, side *linktest.Side, args ...string) string {
	t.Helper()
	var out, errs strings.Builder
	if status := cli.Run(t.Context(), cli.Deps{Version: "test"}, append(args, "--dir", side.Dir.Path()), strings.NewReader(""), &out, &errs); status != 0 {
		t.Fatalf("%v: exit status %d: %s", args, status, errs.String())
	}
	return out.String()
}

// metricsOf is what an agent tells Prometheus.
func metricsOf(t *testing.T, s *linktest.Side) string {
	t.Helper()
	var dialer net.Dialer
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", s.Dir.Socket())
	}}
	answer, err := (&http.Client{Transport: transport}).Get("http://agent/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
