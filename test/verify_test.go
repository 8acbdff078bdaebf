package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// verify compares a link and waits for the result.
func verify(t *testing.T, c *client.Client, name string, in api.Verify) api.Verification {
	t.Helper()
	if _, err := c.Verify(t.Context(), name, in); err != nil {
		t.Fatalf("verify: %v", err)
	}
	var v api.Verification
	pgtest.Eventually(t, linktest.Patience, func() (err error) {
		if v, err = c.Verification(t.Context(), name); err != nil {
			return err
		}
		if v.State == api.Verifying {
			return fmt.Errorf("%s", v.Step)
		}
		return nil
	})
	return v
}

// position reads a position. Texts of positions are of different lengths, and not ordered as positions are.
func position(t *testing.T, text string) lsn.LSN {
	t.Helper()
	at, err := lsn.Parse(text)
	if err != nil {
		t.Fatalf("position %q: %v", text, err)
	}
	return at
}

// told puts what differs into words.
func told(v api.Verification) []string {
	list := []string{}
	for _, d := range v.Differences {
		key := ""
		for _, k := range d.Key {
			key += " " + k.Value
		}
		repaired := ""
		if d.Repaired {
			repaired = ", repaired"
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s%s %s %s", d.Kind, d.Object, key, d.State, strings.Join(d.Columns, ",")))+repaired)
	}
	for _, s := range v.Sequences {
		list = append(list, fmt.Sprintf("sequence %s %s", s.Name, s.State))
	}
	slices.Sort(list)
	return list
}

// tamper changes the secondary as only a superuser can who means to.
func tamper(t *testing.T, s *linktest.Side, database string, sql ...string) {
	t.Helper()
	pgtest.Exec(t, s.Server.DSN(database), append([]string{`SET session_replication_role = replica`, `SET twinspan.pass_gate = on`, `SET default_transaction_read_only = off`}, sql...)...)
}

// keepBusy runs statements against the primary until the returned function is called,
// which returns when the last one has ended: one that is given up may still commit.
func keepBusy(t *testing.T, dsn string, statements ...string) (stop func()) {
	conn := pgtest.Conn(t, dsn)
	ctx, quit := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := conn.Exec(context.WithoutCancel(ctx), statements[i%len(statements)], pgx.QueryExecModeSimpleProtocol); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return sync.OnceFunc(func() {
		quit()
		if err := <-done; err != nil {
			t.Errorf("the workload: %v", err)
		}
	})
}

// leftBehind lists what a verification may leave on a server.
func leftBehind(t *testing.T, s *linktest.Side) []string {
	t.Helper()
	var list []string
	for _, sql := range []string{
		`SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE temporary`,
		`SELECT 'session ' || application_name FROM pg_stat_activity WHERE application_name ~ '^twinspan/.*/(verify|repair|snapshot|slot)$'`,
		`SELECT 'relation ' || relname FROM pg_class WHERE relname ~ '_ccnew'`,
	} {
		for _, row := range pgtest.Query(t, s.Server.DSN("postgres"), sql) {
			list = append(list, row[0])
		}
	}
	return list
}

// nothingLeft waits until servers have noticed that their clients are gone.
func nothingLeft(t *testing.T, p *linktest.Pair) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if list := append(leftBehind(t, p.A), leftBehind(t, p.B)...); len(list) > 0 {
			return fmt.Errorf("left: %v", list)
		}
		return nil
	})
}

func TestVerifyFindsAndRepairsUnderLoad(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shapes")
	a := p.A.Server.DSN("shapes")
	pgtest.Exec(t, a, everyType...)
	pgtest.Exec(t, a, workload...)
	pgtest.Exec(t, a, `CREATE TABLE ledger (id int PRIMARY KEY, amount numeric, note text)`, `INSERT INTO ledger SELECT i, i, 'n' || i FROM generate_series(1, 3000) i`,
		`CREATE INDEX ledger_amount ON ledger (amount)`, `CREATE INDEX ledger_note ON ledger (note)`, `CREATE SEQUENCE numbers INCREMENT 5`,
		`CREATE TABLE no_column ()`, `INSERT INTO no_column SELECT FROM generate_series(1, 3)`)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	stop := keepBusy(t, a, append(slices.Clone(workload), `UPDATE ledger SET amount = amount + 1 WHERE id % 100 = 1`)...)
	defer stop()
	for _, side := range []*linktest.Side{p.A, p.B} {
		v := verify(t, side.Client, "shapes", api.Verify{})
		// Nothing had to be looked at again: both sides were at one position.
		if v.State != api.Equal || v.Rows < 3000 || len(v.Skipped) > 0 || v.ConfirmedAt != "" {
			t.Fatalf("from %s: %s %v, %d rows, skipped %v, looked again at %q, problem %+v", side.Name, v.State, told(v), v.Rows, v.Skipped, v.ConfirmedAt, v.Problem)
		}
		t.Logf("from %s: %d tables, %d rows, the applier paused %.0f ms", side.Name, v.TablesDone, v.Rows, 1000*v.PauseSeconds)
	}

	tamper(t, p.B, "shapes", `UPDATE ledger SET note = note || '!' WHERE id = 7`, `UPDATE ledger SET amount = NULL, note = 'x' WHERE id = 2000`,
		`DELETE FROM ledger WHERE id = 3000`, `INSERT INTO ledger VALUES (-5)`,
		`INSERT INTO keyless VALUES (555, 'twice'), (555, 'twice')`, `DELETE FROM no_column WHERE ctid = '(0,1)'`, `DROP INDEX ledger_amount`,
		`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ledger_note'::regclass`, `ALTER SEQUENCE numbers INCREMENT 7`)
	want := []string{
		"index public.ledger_amount missing", "index public.ledger_note differs",
		"row public.keyless extra", "row public.ledger -5 extra", "row public.ledger 2000 differs amount,note", "row public.ledger 3000 missing", "row public.ledger 7 differs note", "row public.no_column missing",
		"sequence public.numbers differs",
	}
	if v := verify(t, p.A.Client, "shapes", api.Verify{}); v.State != api.Different || !slices.Equal(told(v), want) || position(t, v.ConfirmedAt) <= position(t, v.Position) {
		t.Fatalf("%s, at %s and %s\ntold %q\nwant %q\nproblem %+v", v.State, v.Position, v.ConfirmedAt, told(v), want, v.Problem)
	}
	v := verify(t, p.B.Client, "shapes", api.Verify{Repair: true, Values: true})
	for i := range want {
		want[i] += ", repaired"
	}
	slices.Sort(want)
	if v.State != api.Repaired || !slices.Equal(told(v), want) || v.RepairedRows != 6 || v.RepairedObjects != 3 {
		t.Fatalf("%s\ntold %q\nwant %q\n%d rows and %d objects repaired, problem %+v", v.State, told(v), want, v.RepairedRows, v.RepairedObjects, v.Problem)
	}
	t.Logf("the repair paused the applier %.0f ms", 1000*v.PauseSeconds)
	for _, d := range v.Differences {
		if d.Kind == "row" && d.Object == "public.ledger" && d.State == "differs" && !strings.HasPrefix(d.Repair, `UPDATE ONLY "public"."ledger" SET `) {
			t.Errorf("the statement for %+v is %q", d.Key, d.Repair)
		}
	}
	if v := verify(t, p.A.Client, "shapes", api.Verify{}); v.State != api.Equal {
		t.Fatalf("after the repair: %s %q, problem %+v", v.State, told(v), v.Problem)
	}
	stop()
	p.WaitPhase(t, "shapes", api.Replicating)
	p.WaitEqual(t, "shapes", "shapes")
	nothingLeft(t, p)
}

func TestVerifyLooksIntoFewBlocksOnly(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "big")
	a := p.A.Server.DSN("big")
	pgtest.Exec(t, a, `CREATE TABLE wide (id int PRIMARY KEY, filler text)`, `INSERT INTO wide SELECT i, md5(i::text) FROM generate_series(1, 1000000) i`, `ANALYZE wide`)
	p.Create(t, "big", "big")
	p.WaitPhase(t, "big", api.Replicating)
	p.WaitApplied(t, "big", "big")
	tamper(t, p.B, "big", `DELETE FROM wide WHERE id = 500000`, `UPDATE wide SET filler = '' WHERE id = 1`, `UPDATE wide SET id = -1 WHERE id = 777777`)
	began := time.Now()
	v := verify(t, p.A.Client, "big", api.Verify{})
	want := []string{"row public.wide -1 extra", "row public.wide 1 differs filler", "row public.wide 500000 missing", "row public.wide 777777 missing"}
	if !slices.Equal(told(v), want) || v.Rows != 1000000 {
		t.Errorf("told %q of %d rows, problem %+v", told(v), v.Rows, v.Problem)
	}
	// Each unequal block is looked at on both sides, twice.
	if v.BlocksFetched > 4 || v.RowsFetched > 4*4*2000 || v.RowsFetched == 0 {
		t.Errorf("%d of %d blocks and %d rows were fetched", v.BlocksFetched, v.Blocks, v.RowsFetched)
	}
	t.Logf("%d blocks, %d fetched with %d rows; %v, paused %.0f ms", v.Blocks, v.BlocksFetched, v.RowsFetched, time.Since(began).Round(time.Millisecond), 1000*v.PauseSeconds)
	if v := verify(t, p.A.Client, "big", api.Verify{Repair: true, Tables: []string{"public.wide"}}); v.State != api.Repaired {
		t.Errorf("%s, problem %+v", v.State, v.Problem)
	}

	// Slowed down, it can be cancelled and its agents killed in the middle.
	slow := api.Verify{BytesPerSecond: 2 << 20}
	pgtest.Exec(t, a, `INSERT INTO wide VALUES (2000000)`)
	halfway := func() {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			v, err := p.B.Client.Verification(t.Context(), "big")
			if err == nil && (v.State != api.Verifying || v.Position == "" || v.BytesDone == 0) {
				err = fmt.Errorf("%s, step %s, %d bytes", v.State, v.Step, v.BytesDone)
			}
			return err
		})
	}
	for _, end := range []func(){
		func() {
			v, err := p.A.Client.CancelVerification(t.Context(), "big")
			if err != nil || v.State != api.Cancelled {
				t.Errorf("cancelled: %s, %v", v.State, err)
			}
		},
		func() { p.B.Kill(); p.B.Start() },
		func() { p.A.Kill(); p.A.Start() },
	} {
		p.WaitPhase(t, "big", api.Replicating)
		if _, err := p.B.Client.Verify(t.Context(), "big", slow); err != nil {
			t.Fatal(err)
		}
		halfway()
		end()
		nothingLeft(t, p)
	}
	p.WaitPhase(t, "big", api.Replicating)
	pgtest.Exec(t, a, `UPDATE wide SET filler = 'x' WHERE id < 100`)
	p.WaitEqual(t, "big", "big")
}

func TestVerifySaysWhenItCannot(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`, `CREATE UNLOGGED TABLE u (id int)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	refused := func(code string, c *client.Client, in api.Verify) {
		t.Helper()
		_, err := c.Verify(t.Context(), "sales", in)
		if e, ok := err.(*api.Error); !ok || e.Code != code || e.Hint == "" {
			t.Errorf("%#v, want %s", err, code)
		}
	}
	if _, err := p.A.Client.Verification(t.Context(), "sales"); err == nil || err.(*api.Error).Code != "verification_unknown" {
		t.Errorf("before the first: %v", err)
	}
	// A transaction that was open before is waited for; it does not hold the applier.
	conn := pgtest.Conn(t, a)
	if _, err := conn.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := p.A.Client.Verify(t.Context(), "sales", api.Verify{}); err != nil {
		t.Fatal(err)
	}
	refused("verification_running", p.A.Client, api.Verify{})
	pgtest.Exec(t, a, `INSERT INTO t VALUES (2)`)
	p.WaitApplied(t, "sales", "sales")
	if _, err := conn.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		v, err := p.A.Client.Verification(t.Context(), "sales")
		if err == nil && (v.State != api.Equal || v.Rows != 2 || len(v.Skipped) != 1) {
			err = fmt.Errorf("%+v", v)
		}
		return err
	})
	if v := verify(t, p.A.Client, "sales", api.Verify{Tables: []string{"nothere"}}); v.State != api.Failed || v.Problem.Code != "table_unknown" {
		t.Errorf("a table that is not there: %+v", v)
	}
	if _, err := p.B.Client.Suspend(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Suspended)
	refused("not_replicating", p.A.Client, api.Verify{})
	refused("not_replicating", p.B.Client, api.Verify{})
}
