package test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// rounds is how often a test repeats itself; the variable asks for more.
func rounds(variable string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return n
	}
	return usual
}

// primaryOf returns the side that is primary, and the other.
func primaryOf(t *testing.T, p *linktest.Pair, name string) (primary, secondary *linktest.Side) {
	t.Helper()
	l, err := p.A.Client.Link(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if l.Role == api.Primary {
		return p.A, p.B
	}
	return p.B, p.A
}

// failOver lets the sides change places, as planned, and returns how that ended.
func failOver(t *testing.T, at *linktest.Side, name string, request api.FailoverRequest) api.FailoverProgress {
	t.Helper()
	f, err := at.Client.Failover(t.Context(), name, request)
	if err != nil {
		t.Fatalf("failover: %v", err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		if f, err = at.Client.FailoverProgress(t.Context(), name); err != nil {
			return err
		}
		if f.State == api.FailoverRunning {
			return fmt.Errorf("under way: %+v", f.Steps)
		}
		return nil
	})
	return f
}

// Under load the sides change places again and again: no transfer that a client was
// told of is missing, none is there twice, and none failed but for the refusal of
// the side that is not primary any more.
func TestPlannedFailoversUnderLoad(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "bank")
	if err := pgbench(t, t.Context(), p.A, "bank", "-i", "-s", "2", "-q"); err != nil {
		t.Fatal(err)
	}
	makeBank(t, p.A, "bank")
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	b := openBank(t, 8, true, eitherSide(p, "bank"))
	var stops []func()
	for _, side := range []*linktest.Side{p.A, p.B} { // the one that is refused begins again and again
		stop := load(t, side, "bank", 8)
		stops = append(stops, stop)
		defer stop()
	}
	var holds []float64
	for round := range rounds("TWINSPAN_FAILOVERS", 4) {
		b.waitTransfers(200)
		old, next := primaryOf(t, p, "bank")
		at := []*linktest.Side{old, next}[round%2] // from either side
		f := failOver(t, at, "bank", api.FailoverRequest{})
		if f.State != api.FailoverDone || f.Primary != next.Name {
			t.Fatalf("round %d: %+v, %+v", round, f, f.Problem)
		}
		holds = append(holds, f.HoldSeconds)
		p.WaitPhase(t, "bank", api.Replicating)
		if l, err := next.Client.Link(t.Context(), "bank"); err != nil || l.Role != api.Primary || l.Epoch != int64(round+2) || l.LastFailover == nil {
			t.Fatalf("round %d: the new primary is %+v, %v", round, l, err)
		}
	}
	b.waitTransfers(200)
	b.close()
	for _, stop := range stops {
		stop()
	}
	slices.Sort(holds)
	t.Logf("%d transfers, %d refused and sent again; writers waited %.0f ms in the middle, %.0f ms at most", b.transfers.Load(), b.refusals.Load(),
		1000*holds[len(holds)/2], 1000*holds[len(holds)-1])
	primary, _ := primaryOf(t, p, "bank")
	b.audit(primary.Server.DSN("bank"), false)
	waitEqual(t, p, "bank", "bank")
}

// waitEqual waits until the secondary, whichever that is, has what the primary has.
func waitEqual(t *testing.T, p *linktest.Pair, name, database string) {
	t.Helper()
	primary, secondary := primaryOf(t, p, name)
	(&linktest.Pair{A: primary, B: secondary}).WaitEqual(t, name, database)
}

// traceless fails the test unless nothing of a link is left beside its database.
func traceless(t *testing.T, s *linktest.Side, database, before string) {
	t.Helper()
	if after := traces(t, s, database); after != before {
		t.Errorf("side %s before\n%s\nafter\n%s", s.Name, before, after)
	}
}

// After a few failovers a link is deleted: nothing of it is left on either side,
// whatever roles they had, and both databases work by themselves.
func TestNothingIsLeftAfterFailovers(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	const name = `Weird "Name`
	p.A.Server.CreateDatabase(t, name)
	a, b := p.A.Server.DSN(name), p.B.Server.DSN(name)
	pgtest.Exec(t, a, `CREATE SCHEMA "S ""x"; CREATE TABLE "S ""x"."T" (id int PRIMARY KEY, v text); CREATE TABLE keyless (a int); CREATE SEQUENCE "Count"`,
		`CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (100)`,
		`INSERT INTO "S ""x"."T" VALUES (1, 'x'); INSERT INTO keyless VALUES (1), (1); SELECT nextval('"Count"'), nextval('"Count"')`)
	before := traces(t, p.A, name)
	p.Create(t, "weird", name)
	p.WaitPhase(t, "weird", api.Replicating)
	for round, side := range []*linktest.Side{p.B, p.A, p.B} {
		f := failOver(t, p.A, "weird", api.FailoverRequest{})
		if f.State != api.FailoverDone {
			t.Fatalf("round %d: %+v", round, f.Problem)
		}
		waitSettled(t, p, "weird")
		dsn := side.Server.DSN(name)
		// Every shape of table is written, the schema changes, and a sequence goes on
		// exactly where it was.
		pgtest.Exec(t, dsn, `UPDATE keyless SET a = a + 1 WHERE ctid = (SELECT min(ctid) FROM keyless); INSERT INTO part VALUES (1, 'p')`,
			fmt.Sprintf(`ALTER TABLE "S ""x"."T" ADD c%d int DEFAULT 7; CREATE TABLE new%[1]d (id int PRIMARY KEY); INSERT INTO new%[1]d VALUES (1)`, round))
		if got := pgtest.Query(t, dsn, `SELECT nextval('"Count"')`)[0][0]; got != fmt.Sprint(round+3) {
			t.Errorf("round %d: the sequence gives %s", round, got)
		}
		waitEqual(t, p, "weird", name)
	}
	if _, err := p.A.Client.DeleteLink(t.Context(), "weird", false); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `ALTER TABLE "S ""x"."T" DROP c0, DROP c1, DROP c2; DROP TABLE new0, new1, new2; INSERT INTO keyless VALUES (5)`)
	pgtest.Exec(t, b, `INSERT INTO keyless VALUES (5); CREATE TABLE by_itself (i int); DROP TABLE by_itself, new0, new1, new2`)
	traceless(t, p.A, name, before)
	traceless(t, p.B, name, before)
}

// A cutover leaves an independent new primary, and an old one that refuses writes
// until somebody releases it.
func TestCutover(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "bank")
	makeBank(t, p.A, "bank")
	before := traces(t, p.A, "bank")
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	bank := openBank(t, 4, true, eitherSide(p, "bank"))
	bank.waitTransfers(100)
	f := failOver(t, p.A, "bank", api.FailoverRequest{Cutover: true})
	if f.State != api.FailoverDone || f.Primary != "b" || f.HoldSeconds <= 0 || !strings.Contains(f.Text, "twinspan.release()") {
		t.Fatalf("%+v", f)
	}
	bank.waitTransfers(100)
	bank.close()
	bank.audit(p.B.Server.DSN("bank"), false)
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			if links, err := side.Client.Links(t.Context()); err != nil || len(links) > 0 {
				return fmt.Errorf("agent %s has %v, %v", side.Name, links, err)
			}
			return nil
		})
	}
	traceless(t, p.B, "bank", before)
	for _, sql := range []string{`UPDATE account SET balance = 0`, `DROP TABLE account`, `CREATE TABLE x (i int)`} {
		if _, err := pgtest.Try(t.Context(), stubborn(p.A, "bank")(), sql); err == nil || !strings.Contains(err.Error(), "cutover") {
			t.Errorf("%s on the old side: %v", sql, err)
		}
	}
	pgtest.Exec(t, p.A.Server.DSN("bank"), `BEGIN READ WRITE; SELECT twinspan.release(); COMMIT`)
	pgtest.Exec(t, p.A.Server.DSN("bank"), `UPDATE account SET balance = 0`)
	traceless(t, p.A, "bank", before)
}

// A transaction that does not end is ended after the drain timeout; with a longer one
// it is waited for, and new writers wait meanwhile.
func TestDrain(t *testing.T) {
	t.Parallel()
	p := bankPair(t, linktest.Options{})
	ctx := t.Context()
	running := pgtest.Conn(t, p.A.Server.DSN("bank"))
	insert := func(id string) error {
		_, err := running.Exec(ctx, `INSERT INTO transfer VALUES ($1, 1, 2, 0)`, id)
		return err
	}
	if _, err := running.Exec(ctx, `BEGIN`); err != nil {
		t.Fatal(err)
	}
	if err := insert("first"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.A.Client.Failover(ctx, "bank", api.FailoverRequest{DrainSeconds: 120}); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	awaited := func(what, sql string) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			if pgtest.Query(t, p.A.Server.DSN("bank"), sql)[0][0] == "0" {
				return errors.New(what)
			}
			return nil
		})
	}
	const gated = `SELECT count(*) FROM pg_trigger WHERE tgname = 'twinspan_gate' AND tgrelid = `
	awaited("the gate is not prepared", gated+`'account'::regclass`)
	if n := pgtest.Query(t, p.A.Server.DSN("bank"), gated+`'transfer'::regclass`)[0][0]; n != "0" {
		t.Error("a table that a running transaction has written to was not waited for")
	}
	// Another has passed the gate when that one ends.
	second := pgtest.Conn(t, p.A.Server.DSN("bank"))
	if _, err := second.Exec(ctx, `BEGIN; UPDATE account SET balance = balance + 0 WHERE id = 7`); err != nil {
		t.Fatal(err)
	}
	if _, err := running.Exec(ctx, `COMMIT`); err != nil {
		t.Fatal(err)
	}
	running = second
	awaited("nobody waits for the running transaction", `SELECT count(*) FROM pg_locks WHERE relation = 'twinspan.gate_pass'::regclass AND NOT granted AND mode = 'ExclusiveLock'`)
	go func() {
		_, err := pgtest.Try(ctx, stubborn(p.A, "bank")(), `INSERT INTO transfer VALUES ('late', 1, 2, 0)`)
		waiting <- err
	}()
	// It goes on, also with tables that it has not touched yet, and ends well.
	for _, sql := range []string{`UPDATE account SET balance = balance - 1 WHERE id = 1`, `UPDATE account SET balance = balance + 1 WHERE id = 2`} {
		if _, err := running.Exec(ctx, sql); err != nil {
			t.Errorf("%s in a transaction that had begun: %v", sql, err)
		}
	}
	if err := insert("second"); err != nil {
		t.Error(err)
	}
	if _, err := running.Exec(ctx, `COMMIT`); err != nil {
		t.Error(err)
	}
	if err := <-waiting; err == nil || !strings.Contains(err.Error(), "25006") {
		t.Errorf("a writer that came during the hold: %v", err)
	}
	primary := waitSettled(t, p, "bank")
	if primary != p.B {
		t.Fatal("the sides have not changed places")
	}
	if got := pgtest.Query(t, p.B.Server.DSN("bank"), `SELECT string_agg(id, ' ' ORDER BY id) FROM transfer`)[0][0]; got != "first second" {
		t.Errorf("the new primary has %q", got)
	}

	// The other way round, with a transaction that stays.
	stays := pgtest.Conn(t, p.B.Server.DSN("bank"))
	if _, err := stays.Exec(ctx, `BEGIN; INSERT INTO transfer VALUES ('third', 1, 2, 0)`); err != nil {
		t.Fatal(err)
	}
	f := failOver(t, p.A, "bank", api.FailoverRequest{DrainSeconds: 0.5})
	if f.State != api.FailoverDone || f.Ended != 1 {
		t.Errorf("%+v, %+v", f, f.Problem)
	}
	waitSettled(t, p, "bank")
	waitEqual(t, p, "bank", "bank")

	// A prepared transaction cannot be ended: the failover is refused, and writers go on.
	pgtest.Exec(t, p.A.Server.DSN("bank"), `BEGIN; INSERT INTO transfer VALUES ('fourth', 1, 2, 0); PREPARE TRANSACTION 'stays'`)
	f = failOver(t, p.A, "bank", api.FailoverRequest{})
	if f.State != api.FailoverUndone || f.Problem == nil || f.Problem.Code != "transaction_prepared" {
		t.Errorf("with a prepared transaction: %+v, %+v", f, f.Problem)
	}
	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO transfer VALUES ('fifth', 1, 2, 0)`, `COMMIT PREPARED 'stays'`)
	waitSettled(t, p, "bank")
	waitEqual(t, p, "bank", "bank")
}

// A database has two links. One changes places; the other goes on following the side
// that it followed, which is a secondary now: rows, schema changes and sequences come
// through it. Then the first comes home.
func TestOtherLinksStayWithTheirSide(t *testing.T) {
	t.Parallel()
	p, away, before := homeAndAway(t)
	third := away.B
	bank := openBank(t, 2, true, eitherSide(p, "bank"))
	bank.pace.Store(int64(5 * time.Millisecond))
	for round, side := range []*linktest.Side{p.B, p.A} {
		bank.waitTransfers(50)
		if f := failOver(t, p.B, "home", api.FailoverRequest{}); f.State != api.FailoverDone {
			t.Fatalf("round %d: %+v", round, f.Problem)
		}
		waitSettled(t, p, "home")
		pgtest.Exec(t, side.Server.AppDSN("bank"), fmt.Sprintf(`CREATE TABLE made%d (id serial PRIMARY KEY, v text); INSERT INTO made%[1]d (v) VALUES ('x'), ('y')`, round),
			`ALTER TABLE account ADD COLUMN IF NOT EXISTS note text DEFAULT 'n'`)
		bank.waitTransfers(50)
	}
	bank.close()
	waitEqual(t, p, "home", "bank")
	away.WaitEqual(t, "away", "bank")
	bank.audit(third.Server.DSN("bank"), false)

	// While its own primary is a secondary, the other link cannot change places.
	failOver(t, p.A, "home", api.FailoverRequest{})
	waitSettled(t, p, "home")
	if f := failOver(t, third, "away", api.FailoverRequest{}); f.State != api.FailoverUndone || f.Problem.Code != "database_is_secondary" {
		t.Errorf("a failover of the link whose primary is a secondary: %+v, %+v", f, f.Problem)
	}
	pgtest.Exec(t, p.B.Server.DSN("bank"), `INSERT INTO made1 (v) VALUES ('z')`)
	waitEqual(t, p, "home", "bank")
	away.WaitEqual(t, "away", "bank")

	// The side that a cutover has left stays shut, whatever the other link does there.
	failOver(t, p.A, "home", api.FailoverRequest{})
	waitSettled(t, p, "home")
	if f := failOver(t, p.A, "home", api.FailoverRequest{Cutover: true}); f.State != api.FailoverDone || !strings.Contains(f.Text, "twinspan.release()") {
		t.Fatalf("cutover: %+v, %+v", f, f.Problem)
	}
	shut := func(when string) {
		t.Helper()
		if _, err := pgtest.Try(t.Context(), stubborn(p.A, "bank")(), `UPDATE account SET balance = 0`); err == nil || !strings.Contains(err.Error(), "cutover") {
			t.Errorf("%s, on the old side: %v", when, err)
		}
	}
	p.A.Kill()
	p.A.Start() // looks anew at what is left to do
	away.WaitPhase(t, "away", api.Replicating)
	away.WaitEqual(t, "away", "bank")
	shut("beside another link")
	if _, err := p.A.Client.DeleteLink(t.Context(), "away", false); err != nil {
		t.Fatal(err)
	}
	shut("without any link")
	pgtest.Exec(t, p.A.Server.DSN("bank"), `BEGIN READ WRITE; SELECT twinspan.release(); COMMIT`)
	pgtest.Exec(t, p.A.Server.DSN("bank"), `UPDATE account SET balance = 0; DROP TABLE made0, made1`)
	traceless(t, p.A, "bank", before)
}

// Two links of one database change places at once: one does, the other does not.
func TestOneOfTwoLinksChangesPlaces(t *testing.T) {
	t.Parallel()
	p, away, _ := homeAndAway(t)
	third := away.B
	bank := openBank(t, 2, true, anySide("bank", p.A, p.B, third))
	bank.pace.Store(int64(5 * time.Millisecond))
	bank.waitTransfers(50)
	// Both come as far as to wait for one who has passed the gate.
	writer := pgtest.Conn(t, p.A.Server.DSN("bank"))
	pgtest.Exec(t, p.A.Server.DSN("bank"), `SET twinspan.pass_gate = on`, `CREATE UNLOGGED TABLE IF NOT EXISTS twinspan.gate_pass ()`)
	if _, err := writer.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.gate_pass IN ROW EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	ended := make(chan api.FailoverProgress, 2)
	for name, side := range map[string]*linktest.Side{"home": p.B, "away": third} {
		go func() {
			var f api.FailoverProgress
			defer func() { ended <- f }() // nothing, where it was refused
			f = failOver(t, side, name, api.FailoverRequest{DrainSeconds: 60})
		}()
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		waiting := pgtest.Query(t, p.A.Server.DSN("postgres"), `SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%/hold' AND wait_event_type = 'Lock'`)[0][0]
		if waiting != "2" {
			return fmt.Errorf("%s failovers wait for the writer", waiting)
		}
		return nil
	})
	if _, err := writer.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	first, second := <-ended, <-ended
	if first.State != api.FailoverDone {
		first, second = second, first
	}
	if first.State != api.FailoverDone || second.State != api.FailoverUndone || second.Problem.Code != "database_is_secondary" {
		t.Fatalf("%+v, %+v; %+v, %+v", first, first.Problem, second, second.Problem)
	}
	waitSettled(t, p, "home")
	waitSettled(t, away, "away")
	bank.waitTransfers(50)
	bank.close()
	// What is written goes to a first, and from there to the last of the three.
	pairs := map[string]*linktest.Pair{"home": p, "away": away}
	waitEqual(t, pairs[first.Link], first.Link, "bank")
	waitEqual(t, pairs[second.Link], second.Link, "bank")
	_, last := primaryOf(t, pairs[second.Link], second.Link)
	bank.audit(last.Server.DSN("bank"), false)
}
