package test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// copySchema is what the writers of a copied database work on, beside tables that nobody
// changes.
const copySchema = `
	CREATE TABLE still (id int PRIMARY KEY, note text);
	INSERT INTO still SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 20000) n;
	CREATE INDEX still_note ON still (md5(note));
	CREATE TABLE nokey (a int, b text);
	INSERT INTO nokey SELECT n % 7, 'x' || n % 3 FROM generate_series(1, 1000) n;
	CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.note := coalesce(new.note, '''') || ''!''; RETURN new; END';
	CREATE TRIGGER always BEFORE UPDATE ON still FOR EACH ROW EXECUTE FUNCTION touched();
	ALTER TABLE still ENABLE ALWAYS TRIGGER always;
	CREATE TABLE ledger0 (id int PRIMARY KEY, v bigint, note text);
	CREATE TABLE ledger1 (id int PRIMARY KEY, v bigint, note text);
	CREATE TABLE ledger2 (id int PRIMARY KEY, v bigint, note text);`

// ledgerStep is the n-th transaction of a writer: what its table holds is told by how many
// were done.
func ledgerStep(writer, n int) string {
	table := fmt.Sprintf("ledger%d", writer)
	return fmt.Sprintf(`INSERT INTO %[1]s VALUES (%[2]d, %[2]d, 'note %[2]d'); UPDATE %[1]s SET v = v + %[2]d, note = note || 'u' WHERE id IN (%[2]d / 2, %[2]d / 3); DELETE FROM %[1]s WHERE id = %[2]d - 300`, table, n)
}

// steady is a writer at work, and when each of its transactions committed, by the log.
type steady struct {
	writer int
	mu     sync.Mutex
	before []lsn.LSN // the commit record lies behind, of step i+1
	after  []lsn.LSN // and before
	stop   func()
}

// startLedger has a writer work until its stop is called.
func startLedger(t *testing.T, dsn string, writer int) *steady {
	t.Helper()
	conn := pgtest.Conn(t, dsn)
	l := &steady{writer: writer}
	quit, done := make(chan struct{}), make(chan error, 1)
	l.stop = sync.OnceFunc(func() {
		close(quit)
		if err := <-done; err != nil {
			t.Errorf("writer %d: %v", writer, err)
		}
	})
	t.Cleanup(l.stop)
	go func() {
		ctx := context.Background()
		position := func() (p lsn.LSN, err error) {
			var text string
			if err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
				return 0, err
			}
			return lsn.Parse(text)
		}
		for n := 1; ; n++ {
			select {
			case <-quit:
				done <- nil
				return
			default:
			}
			before, err := position()
			if err == nil {
				_, err = conn.Exec(ctx, ledgerStep(writer, n), pgx.QueryExecModeSimpleProtocol)
			}
			var after lsn.LSN
			if err == nil {
				after, err = position()
			}
			if err != nil {
				done <- err
				return
			}
			l.mu.Lock()
			l.before, l.after = append(l.before, before), append(l.after, after)
			l.mu.Unlock()
		}
	}()
	return l
}

// doneAt says which steps had committed before a position: the last of them is between the
// two where the log does not tell.
func (l *steady) doneAt(position lsn.LSN) (least, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.after {
		if l.after[i] <= position {
			least = i + 1
		}
		if l.before[i] < position {
			most = i + 1
		}
	}
	return least, most
}

// steps is how many the writer has done.
func (l *steady) steps() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.after)
}

// awaitSteps waits until the writer has done more.
func (l *steady) awaitSteps(t *testing.T, more int) {
	t.Helper()
	l.mu.Lock()
	from := len(l.after)
	l.mu.Unlock()
	pgtest.Eventually(t, linktest.Patience, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.after) < from+more {
			return fmt.Errorf("%d steps", len(l.after))
		}
		return nil
	})
}

// awaitOnTwin waits until something of every writer has arrived.
func awaitOnTwin(t *testing.T, p *linktest.Pair, database string) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		row := pgtest.Query(t, p.B.Server.DSN(database), `SELECT (SELECT max(id) FROM ledger0) > 50 AND (SELECT max(id) FROM ledger1) > 50 AND (SELECT max(id) FROM ledger2) > 50`)[0]
		if row[0] != "true" && row[0] != "t" {
			return fmt.Errorf("the twin has few of the writers' rows")
		}
		return nil
	})
}

// copyDatabase makes a copy and waits for it to be over.
func copyDatabase(t *testing.T, s *linktest.Side, in api.CopyDatabase) api.DatabaseCopy {
	t.Helper()
	v, err := s.Client.CopyDatabase(t.Context(), in)
	if err != nil {
		t.Fatalf("copy %q: %v", in.Database, err)
	}
	return awaitCopy(t, s, v.ID)
}

func awaitCopy(t *testing.T, s *linktest.Side, id string) (v api.DatabaseCopy) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() (err error) {
		if v, err = s.Client.Copy(t.Context(), id); err != nil {
			return err
		}
		if v.State == api.Copying {
			return fmt.Errorf("%s", v.Step)
		}
		return nil
	})
	return v
}

// awaitCopying waits until rows are copied.
func awaitCopying(t *testing.T, s *linktest.Side, id string) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		v, err := s.Client.Copy(t.Context(), id)
		if err == nil && v.State != api.Copying {
			t.Fatalf("the copy is over: %+v, %+v", v, v.Problem)
		}
		if err == nil && v.BytesDone == 0 {
			err = fmt.Errorf("%s", v.Step)
		}
		return err
	})
}

func mustBeCopied(t *testing.T, v api.DatabaseCopy) {
	t.Helper()
	if v.State != api.Copied {
		t.Fatalf("the copy is %s: %+v", v.State, v.Problem)
	}
}

// isStateAt compares a copy row by row with a database in which the writers' steps were done
// again, as many as had committed at the position that the copy names.
func isStateAt(t *testing.T, s *pgtest.Server, copied string, v api.DatabaseCopy, ledgers []*steady) {
	t.Helper()
	holdsStateAt(t, s.DSN(s.Database(t)), s.DSN(copied), v, ledgers)
}

// holdsStateAt is isStateAt of a copy on any server, with an empty database to compare with.
func holdsStateAt(t *testing.T, reference, copied string, v api.DatabaseCopy, ledgers []*steady) {
	t.Helper()
	if !v.Exact {
		t.Fatalf("the position is not exact: %+v", v)
	}
	position, err := lsn.Parse(v.Position)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, reference, copySchema)
	conn := pgtest.Conn(t, reference)
	var said []string
	for _, l := range ledgers {
		least, most := l.doneAt(position)
		// What the log leaves open of one step, the copy's rows say.
		steps := least
		if most > least && pgtest.Query(t, copied, fmt.Sprintf(`SELECT count(*) FROM ledger%d WHERE id = %d`, l.writer, most))[0][0] == "1" {
			steps = most
		}
		if most > least+1 {
			t.Fatalf("writer %d did between %d and %d steps before %s", l.writer, least, most, position)
		}
		said = append(said, fmt.Sprint(steps))
		for n := 1; n <= steps; n++ {
			if _, err := conn.Exec(t.Context(), ledgerStep(l.writer, n), pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%s is at %s, after %s steps", v.Name, v.Position, strings.Join(said, ", "))
	pgtest.Equal(t, reference, copied)
}

// isOrdinary sees that a copy is a database like any other: nothing of a link is in it, its
// owner can write to it and dump it.
func isOrdinary(t *testing.T, s *pgtest.Server, name string) {
	t.Helper()
	dsn := s.DSN(name)
	for _, row := range pgtest.Query(t, dsn, `
		SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'twinspan%'
		UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'twinspan%'
		UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
		UNION ALL SELECT 'publication ' || pubname FROM pg_publication
		UNION ALL SELECT 'identity of ' || relname || ' is ' || relreplident::text FROM pg_class WHERE relkind = 'r' AND relreplident <> 'd' AND oid >= 16384
		UNION ALL SELECT 'mode ' || tgenabled::text FROM pg_trigger WHERE tgname = 'always' AND tgenabled <> 'A'
		UNION ALL SELECT 'setting ' || setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database() WHERE setconfig::text ~ 'twinspan|read_only'
		UNION ALL SELECT 'draft ' || datname FROM pg_database WHERE datname LIKE 'twinspan copy%'`) {
		t.Errorf("%s has %s", name, row[0])
	}
	owner := s.DSNOf("copy_owner", pgtest.Password, name)
	pgtest.Exec(t, owner, `INSERT INTO still VALUES (0, 'written')`, `UPDATE still SET note = 'changed' WHERE id = 1`, `CREATE TABLE made_by_owner (a int)`, `DELETE FROM nokey WHERE a = 3`)
	if note := pgtest.Query(t, owner, `SELECT note FROM still WHERE id = 1`)[0][0]; note != "changed!" {
		t.Errorf("%s: the owner's trigger made %q", name, note)
	}
	program, _, err := instance.FindClient("pg_dump", 0)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "--dbname="+owner, "--file=/dev/null").CombinedOutput(); err != nil {
		t.Errorf("%s: pg_dump by the owner: %v: %s", name, err, out)
	}
}

// ownedDatabase makes a database with the copy's schema, which belongs to a role that can
// log in on every server.
func ownedDatabase(t *testing.T, p *linktest.Pair, name string) {
	t.Helper()
	for _, s := range []*pgtest.Server{p.A.Server, p.B.Server} {
		pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE copy_owner LOGIN PASSWORD `+sqlname.Literal(pgtest.Password))
	}
	p.A.Server.CreateDatabase(t, name)
	dsn := p.A.Server.DSN(name)
	pgtest.Exec(t, dsn, copySchema, `ALTER DATABASE `+sqlname.Quote(name)+` OWNER TO copy_owner`,
		`DO $$ DECLARE r record; BEGIN FOR r IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP EXECUTE format('ALTER TABLE %I OWNER TO copy_owner', r.relname); END LOOP; END $$`,
		`GRANT CREATE ON SCHEMA public TO copy_owner`, `ALTER FUNCTION touched() OWNER TO copy_owner`,
		`SELECT lo_from_bytea(4711, '\xdeadbeef')`, `ALTER LARGE OBJECT 4711 OWNER TO copy_owner`)
}

// TestDatabaseCopies copies a twin and its primary under load, to both instances.
func TestDatabaseCopies(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	database := `Odd "sales"; é`
	ownedDatabase(t, p, database)
	p.Create(t, "sales", database)
	p.WaitPhase(t, "sales", api.Replicating)

	var ledgers []*steady
	for w := range 3 {
		ledgers = append(ledgers, startLedger(t, p.A.Server.DSN(database), w))
	}
	// A reader of the twin that is there all the time, and one that comes and goes.
	reader := pgtest.Conn(t, p.B.Server.DSN(database))
	if _, err := reader.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM still`); err != nil {
		t.Fatal(err)
	}
	stopReading := keepBusy(t, p.B.Server.DSN(database), `SELECT sum(v) FROM ledger0`, `SELECT count(*) FROM still WHERE note LIKE '%00%'`)
	defer stopReading()
	worst := make(chan float64, 1)
	watching, stopWatching := context.WithCancel(t.Context())
	defer stopWatching()
	go func() {
		most := 0.0
		for watching.Err() == nil {
			if l, err := p.B.Client.Link(watching, "sales"); err == nil && l.Lag.Seconds != nil {
				most = max(most, *l.Lag.Seconds)
			}
			select {
			case <-watching.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		worst <- most
	}()

	awaitOnTwin(t, p, database)
	ofTwin := copyDatabase(t, p.B, api.CopyDatabase{Database: database, Name: `Copy "of" twin`})
	mustBeCopied(t, ofTwin)
	if ofTwin.Link != "sales" || ofTwin.CommittedAt == nil || time.Since(*ofTwin.CommittedAt) > linktest.Patience || len(ofTwin.Left) != 0 || len(ofTwin.Roles) != 0 {
		t.Errorf("the copy of the twin is %+v", ofTwin)
	}
	ledgers[0].awaitSteps(t, 300)
	ofPrimary := copyDatabase(t, p.A, api.CopyDatabase{Database: database, Name: "copy of primary"})
	mustBeCopied(t, ofPrimary)
	if ofPrimary.Link != "" {
		t.Errorf("the copy of the primary is %+v", ofPrimary)
	}
	ledgers[0].awaitSteps(t, 300)
	toPeer := copyDatabase(t, p.A, api.CopyDatabase{Database: database, Name: "copy on the peer", Peer: "b"})
	mustBeCopied(t, toPeer)

	// What the other instance has not granted it refuses, and says what grants it.
	back := copyDatabase(t, p.B, api.CopyDatabase{Database: database, Name: "copy back", Peer: "a"})
	if back.State != api.CopyFailed || back.Problem.Code != "peer_not_granted" || !strings.Contains(back.Problem.Hint, "twinspan peer grant b --database 'copy back'") {
		t.Errorf("without a grant the copy is %+v, %+v", back, back.Problem)
	}
	if _, err := p.A.Client.GrantPeer(t.Context(), "b", api.Grant{Database: "copy back", Direction: "to-here", Operations: []string{"link"}}); err != nil {
		t.Fatal(err)
	}
	back = copyDatabase(t, p.B, api.CopyDatabase{Database: database, Name: "copy back", Peer: "a"})
	mustBeCopied(t, back)

	ledgers[0].awaitSteps(t, 300)
	stopWatching()
	t.Logf("the twin was at most %.1f s behind", <-worst)
	stopReading()
	if _, err := reader.Exec(t.Context(), `SELECT count(*) FROM still; COMMIT`); err != nil {
		t.Errorf("the reader of the twin: %v", err)
	}
	for _, l := range ledgers {
		l.stop()
	}
	p.WaitPhase(t, "sales", api.Replicating)
	p.WaitEqual(t, "sales", database)

	isStateAt(t, p.B.Server, `Copy "of" twin`, ofTwin, ledgers)
	isStateAt(t, p.A.Server, "copy of primary", ofPrimary, ledgers)
	isStateAt(t, p.B.Server, "copy on the peer", toPeer, ledgers)
	isStateAt(t, p.A.Server, "copy back", back, ledgers)
	for name, s := range map[string]*pgtest.Server{`Copy "of" twin`: p.B.Server, "copy of primary": p.A.Server, "copy on the peer": p.B.Server, "copy back": p.A.Server} {
		isOrdinary(t, s, name)
	}
	listed, err := p.B.Client.Databases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range listed {
		if d.Name == `Copy "of" twin` && (d.Owner != "copy_owner" || len(d.Links) != 0) {
			t.Errorf("the copy is listed as %+v", d)
		}
	}
}

// TestDatabaseCopyOfARestingTwin copies a twin whose link is suspended, and refuses one
// whose first copy is under way.
func TestDatabaseCopyOfARestingTwin(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	ownedDatabase(t, p, "sales")
	link, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "sales", Peer: "b", MaxRate: 10 << 10})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), link.Name)
		if err == nil && l.Phase != api.Seeding {
			err = fmt.Errorf("phase %s", l.Phase)
		}
		return err
	})
	early := copyDatabase(t, p.B, api.CopyDatabase{Database: "sales", Name: "early"})
	if early.State != api.CopyFailed || early.Problem.Code != "twin_not_whole" {
		t.Errorf("while the twin is first copied: %+v, %+v", early, early.Problem)
	}
	none := int64(0)
	if _, err := p.A.Client.SetLink(t.Context(), "sales", api.SetLink{MaxRate: &none}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	ledgers := []*steady{startLedger(t, p.A.Server.DSN("sales"), 0), startLedger(t, p.A.Server.DSN("sales"), 1), startLedger(t, p.A.Server.DSN("sales"), 2)}
	awaitOnTwin(t, p, "sales")
	if _, err := p.B.Client.Suspend(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Suspended)
	ledgers[2].awaitSteps(t, 20)
	resting := copyDatabase(t, p.B, api.CopyDatabase{Database: "sales", Name: "resting"})
	mustBeCopied(t, resting)
	for _, l := range ledgers {
		l.stop()
	}
	isStateAt(t, p.B.Server, "resting", resting, ledgers)
	isOrdinary(t, p.B.Server, "resting")
	object := pgtest.Query(t, p.B.Server.DSNOf("copy_owner", pgtest.Password, "resting"), `SELECT encode(lo_get(4711), 'hex')`)[0][0]
	if object != "deadbeef" || resting.LargeObjects != 1 || resting.ObjectsAsOf == nil || resting.ObjectsAsOf.After(resting.StartedAt) {
		t.Errorf("the large object is %s, of %+v", object, resting)
	}
	if _, err := p.B.Client.Resume(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	p.WaitEqual(t, "sales", "sales")
	// An idle link hands nothing over: the applier is called all the same.
	idle := copyDatabase(t, p.B, api.CopyDatabase{Database: "sales", Name: "idle"})
	mustBeCopied(t, idle)
	isStateAt(t, p.B.Server, "idle", idle, ledgers)
}

// TestDatabaseCopyToANewerPeer copies a database without a link to a newer server, which
// lacks a role.
func TestDatabaseCopyToANewerPeer(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{pgtest.WithMajor(14)}, ServerB: []pgtest.Option{pgtest.WithMajor(18)}})
	p.A.Server.CreateDatabase(t, "old")
	dsn := p.A.Server.DSN("old")
	pgtest.Exec(t, dsn, copySchema, `CREATE ROLE "only ""here"" LOGIN"`, `ALTER TABLE still OWNER TO "only ""here"" LOGIN"`, `CREATE UNLOGGED TABLE fast AS SELECT generate_series(1, 50) AS n`)
	v := copyDatabase(t, p.A, api.CopyDatabase{Database: "old", Name: "new", Peer: "b"})
	mustBeCopied(t, v)
	if !v.Exact || len(v.Roles) != 1 || v.Roles[0] != `only "here" LOGIN` || len(v.Left) != 0 || v.Link != "" || v.CommittedAt != nil {
		t.Errorf("the copy is %+v", v)
	}
	pgtest.Equal(t, dsn, p.B.Server.DSN("new"))
	if n := pgtest.Query(t, p.B.Server.DSN("new"), `SELECT count(*) || ' ' || current_setting('server_version_num')::int / 10000 FROM fast`)[0][0]; n != "50 18" {
		t.Errorf("the unlogged table and the version are %s", n)
	}
	pgtest.Exec(t, p.B.Server.DSN("new"), `DROP TABLE ledger0`)
	// A name that is taken there is refused there.
	v = copyDatabase(t, p.A, api.CopyDatabase{Database: "old", Name: "new", Peer: "b"})
	if v.State != api.CopyFailed || v.Problem.Code != "database_exists" {
		t.Errorf("with a name that is taken: %+v, %+v", v, v.Problem)
	}
	if _, err := p.A.Client.CopyDatabase(t.Context(), api.CopyDatabase{Database: "none", Name: "new"}); code(err) != "database_missing" {
		t.Errorf("of a database that does not exist: %v", err)
	}
}

// TestDatabaseCopyIsKilled kills agents in the middle of copies: nothing stays, and the
// same copy can be made again.
func TestDatabaseCopyIsKilled(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{Config: func(_ string, c *config.Config) { c.Limits.SeedWorkers = 2 }})
	ownedDatabase(t, p, "sales")
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE ROLE only_here`)
	// Two workers are busy with the two large tables for half a minute.
	pgtest.Exec(t, p.A.Server.DSN("sales"), `GRANT SELECT ON still TO only_here`, `CREATE TABLE still2 AS SELECT * FROM still`)
	drafts := func(s *linktest.Side) error {
		rows := pgtest.Query(t, s.Server.DSN("postgres"), `SELECT datname FROM pg_database WHERE datname LIKE 'twinspan copy%' OR datname LIKE 'killed%'
			UNION ALL SELECT rolname FROM pg_roles WHERE rolname = 'only_here' AND $1`, s.Name == "b")
		if len(rows) > 0 {
			return fmt.Errorf("side %s has %v", s.Name, rows)
		}
		return nil
	}
	begin := func(peer string) string {
		v, err := p.A.Client.CopyDatabase(t.Context(), api.CopyDatabase{Database: "sales", Name: "killed", Peer: peer, BytesPerSecond: 400 << 10})
		if err != nil {
			t.Fatal(err)
		}
		awaitCopying(t, p.A, v.ID)
		return v.ID
	}

	begin("")
	p.A.Kill()
	p.A.Start()
	pgtest.Eventually(t, linktest.Patience, func() error { return drafts(p.A) })
	if all, err := p.A.Client.Copies(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("after a restart there are the copies %+v, %v", all, err)
	}

	// The agent that makes it for the peer dies.
	id := begin("b")
	p.B.Kill()
	p.B.Start()
	if v := awaitCopy(t, p.A, id); v.State != api.CopyFailed || v.Problem.Code != "copy_lost" {
		t.Errorf("after the other agent's death: %+v, %+v", v, v.Problem)
	}
	pgtest.Eventually(t, linktest.Patience, func() error { return drafts(p.B) })

	// The agent that holds the moment dies.
	begin("b")
	p.A.Kill()
	p.A.Start()
	pgtest.Eventually(t, linktest.Patience, func() error {
		return errors.Join(drafts(p.B), drafts(p.A))
	})

	// It is cancelled, on either side.
	id = begin("b")
	if v, err := p.A.Client.CancelCopy(t.Context(), id); err != nil || v.State != api.CopyCancelled {
		t.Errorf("cancelled: %+v, %v", v, err)
	}
	if err := errors.Join(drafts(p.A), drafts(p.B)); err != nil {
		t.Errorf("after it was cancelled: %v", err)
	}
	id = begin("b")
	there, err := p.B.Client.Copies(t.Context())
	if err != nil || len(there) == 0 || !there[0].Incoming || there[0].Peer != "a" {
		t.Fatalf("the peer shows %+v, %v", there, err)
	}
	if _, err := p.B.Client.CancelCopy(t.Context(), there[0].ID); err != nil {
		t.Fatal(err)
	}
	if v := awaitCopy(t, p.A, id); v.State != api.CopyCancelled {
		t.Errorf("cancelled on the other side: %+v, %+v", v, v.Problem)
	}

	// A table is truncated meanwhile: it is begun anew.
	id = begin("")
	pgtest.Exec(t, p.A.Server.DSN("sales"), `TRUNCATE nokey`, `INSERT INTO nokey VALUES (1, 'new')`)
	v := awaitCopy(t, p.A, id)
	mustBeCopied(t, v)
	if v.Attempt < 2 {
		t.Errorf("it was begun %d times", v.Attempt)
	}
	pgtest.Equal(t, p.A.Server.DSN("sales"), p.A.Server.DSN("killed"))
}
