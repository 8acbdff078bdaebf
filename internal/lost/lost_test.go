package lost_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), pg.Session{Name: "test", Apply: true, Fenced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// former is a database whose link's slot was left behind.
type former struct {
	dsn    string
	source capture.Source
	parted lsn.LSN
	before string // the database as it was at the parting
	spills int
}

// part makes a database with a schema and its slot, and a copy of the database as
// it is then: that is the twin which knows nothing of what comes after.
func part(t testing.TB, server *pgtest.Server, schema ...string) *former {
	t.Helper()
	name := server.Database(t)
	f := &former{dsn: server.DSN(name) + "&client_encoding=UTF8"}
	pgtest.Exec(t, f.dsn, schema...)
	conn := connect(t, f.dsn)
	if err := catalog.Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	var oid int
	fmt.Sscan(pgtest.Query(t, f.dsn, `SELECT oid FROM pg_database WHERE datname = current_database()`)[0][0], &oid)
	d, err := pg.ParseDSN(f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	f.source = capture.Source{DSN: d, Link: fmt.Sprintf("%08x-6f7e-4b7e-9f60-2f1c0e8d7a11", oid), Name: "sales", Log: slog.New(slog.DiscardHandler)}
	err = catalog.Insert(testContext(t), conn, &catalog.Link{
		ID: f.source.Link, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
		Name: "sales", Peer: "b", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.source.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
	pgtest.Query(t, f.dsn, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, f.source.Object())
	// A transaction that the twin has: it is behind the slot's position, and before
	// the parting.
	pgtest.Exec(t, f.dsn, `CREATE TABLE public.applied (id int PRIMARY KEY)`, `INSERT INTO public.applied VALUES (1)`)
	text := pgtest.Query(t, f.dsn, `SELECT pg_current_wal_insert_lsn()`)[0][0]
	if f.parted, err = lsn.Parse(text); err != nil {
		t.Fatal(err)
	}
	f.before = f.copy(t, server, name)
	return f
}

// copy makes a copy of the database without what a link adds.
func (f *former) copy(t testing.TB, server *pgtest.Server, name string) string {
	t.Helper()
	copied := name + "_before"
	pgtest.Exec(t, server.DSN("postgres"), `CREATE DATABASE "`+copied+`" TEMPLATE "`+name+`"`)
	t.Cleanup(func() { pgtest.Exec(t, server.DSN("postgres"), `DROP DATABASE IF EXISTS "`+copied+`"`) })
	other := server.DSN(copied) + "&client_encoding=UTF8"
	pgtest.Exec(t, other, `DROP PUBLICATION `+f.source.Object(), `DO $$DECLARE r record; BEGIN FOR r IN SELECT evtname FROM pg_event_trigger LOOP EXECUTE format('DROP EVENT TRIGGER %I', r.evtname); END LOOP; END$$`,
		`DROP SCHEMA twinspan CASCADE`)
	return other
}

// Read implements lost.Source as links do.
func (f *former) Read(ctx context.Context, from lsn.LSN, encoding string, w io.Writer) error {
	d := f.source.DSN
	conn, err := d.Connect(ctx, pg.Session{Name: "check"})
	if err != nil {
		return err
	}
	err = capture.CheckSlot(ctx, conn, f.source.Object(), from, "")
	conn.Close(ctx)
	if err != nil {
		return err
	}
	s := capture.NewStream(f.source, from)
	s.Encoding, s.Peek, s.Sink = encoding, true, sink{w}
	return s.Run(ctx)
}

type sink struct{ io.Writer }

func (sink) Flush() error { return nil }

// spilled is a message in memory, as tests can afford.
type spilled struct{ b []byte }

func (s spilled) Bytes() []byte { return s.b }
func (s spilled) Close() error  { return nil }

func (f *former) spill(_ context.Context, from io.Reader, length int) (lost.Big, error) {
	f.spills++
	b := make([]byte, length)
	_, err := io.ReadFull(from, b)
	return spilled{b}, err
}

func (f *former) parting() lost.Parting {
	return lost.Parting{Link: f.source.Link, Epoch: 2, Parted: f.parted}
}

func (f *former) collect(t testing.TB) {
	t.Helper()
	c := &lost.Collector{Parting: f.parting(), DSN: f.source.DSN, Name: "sales", Source: f, Spill: f.spill, Log: slog.New(slog.DiscardHandler)}
	// The server may not have noticed yet that the slot's last reader is gone.
	pgtest.Eventually(t, time.Minute, func() error {
		err := c.Run(testContext(t))
		if err != nil && !problem.Retry(err) {
			t.Fatal(err)
		}
		return err
	})
}

// all reads every lost transaction, in pages of the size.
func (f *former) all(t testing.TB, limit lost.Limit) []lost.Transaction {
	t.Helper()
	conn, err := lost.Connect(testContext(t), f.source.DSN, "sales")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var list []lost.Transaction
	for after, more := int64(0), true; more; {
		var page []lost.Transaction
		var err error
		page, after, more, err = lost.Page(testContext(t), conn, f.source.Link, 2, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page {
			if len(list) > 0 && list[len(list)-1].Number == x.Number {
				last := &list[len(list)-1]
				last.Changes = append(last.Changes, x.Changes...)
				continue
			}
			list = append(list, x)
		}
	}
	return list
}

// redo writes what was lost as a script.
func redo(t testing.TB, list []lost.Transaction) string {
	t.Helper()
	var b strings.Builder
	for name, value := range pg.DataSettings() {
		fmt.Fprintf(&b, "SET %s = '%s';\n", name, value)
	}
	for _, x := range list {
		if int64(len(x.Changes)) != x.Total {
			t.Errorf("transaction %d has %d changes, and says %d", x.Number, len(x.Changes), x.Total)
		}
		b.WriteString("BEGIN;\n")
		for _, c := range x.Changes {
			sql, _ := c.Redo()
			b.WriteString(sql + ";\n")
		}
		b.WriteString("COMMIT;\n")
	}
	return b.String()
}

// summary describes each change in a line.
func summary(list []lost.Transaction) []string {
	var lines []string
	for _, x := range list {
		for _, c := range x.Changes {
			line := fmt.Sprintf("%d %s %s", x.Number, c.Kind, c.Table)
			for _, side := range []struct {
				mark   string
				values []lost.Value
			}{{"-", c.Old}, {"+", c.New}} {
				for _, v := range side.values {
					text := v.Text
					switch v.State {
					case lost.Null:
						text = "NULL"
					case lost.Unchanged, lost.Long:
						text = string(v.State)
					}
					line += fmt.Sprintf(" %s%s=%s", side.mark, v.Column, text)
				}
			}
			lines = append(lines, line+" "+c.Detail)
		}
	}
	return lines
}

func checkLines(t testing.TB, got, want []string) {
	t.Helper()
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEveryKindOfChange reads each kind, in commit order, and not what the twin has.
func TestEveryKindOfChange(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE SCHEMA "Odd ""S"`,
		`CREATE TABLE "Odd ""S"."T '\x" ("Id" int PRIMARY KEY, "a b" text, c int)`,
		`CREATE TABLE public.keyless (a int, b text)`,
		`INSERT INTO "Odd ""S"."T '\x" VALUES (1, 'one', 1), (2, 'two', NULL), (3, 'three', 3)`,
		`INSERT INTO public.keyless VALUES (1, 'x'), (1, 'x'), (2, NULL)`)
	slow, quick := pgtest.Conn(t, f.dsn), pgtest.Conn(t, f.dsn)
	for _, step := range []struct {
		conn *pgx.Conn
		sql  string
	}{
		{slow, `BEGIN; INSERT INTO public.keyless VALUES (9, 'begun first')`},
		{quick, `INSERT INTO "Odd ""S"."T '\x" VALUES (4, E'q''\\ü\n', NULL)`},
		{quick, `UPDATE "Odd ""S"."T '\x" SET c = 7 WHERE "Id" = 1`},
		{slow, `COMMIT`},
		{quick, `BEGIN; UPDATE "Odd ""S"."T '\x" SET "Id" = 20 WHERE "Id" = 2; DELETE FROM "Odd ""S"."T '\x" WHERE "Id" = 3; COMMIT`},
		{quick, `BEGIN; INSERT INTO public.keyless VALUES (8, 'undone'); ROLLBACK`},
		{quick, `UPDATE public.keyless SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM public.keyless)`},
		{quick, `DELETE FROM public.keyless WHERE a = 2`},
		{quick, `TRUNCATE public.keyless RESTART IDENTITY CASCADE`},
	} {
		if _, err := step.conn.Exec(testContext(t), step.sql); err != nil {
			t.Fatalf("%s: %v", step.sql, err)
		}
	}
	f.collect(t)
	odd := `"Odd ""S"."T '\x"`
	checkLines(t, summary(f.all(t, lost.Limit{Changes: 2})), []string{
		"1 insert " + odd + " +Id=4 +a b=q'\\ü\n +c=NULL",
		"2 update " + odd + " +Id=1 +a b=one +c=7",
		"3 insert public.keyless +a=9 +b=begun first",
		"4 update " + odd + " -Id=2 +Id=20 +a b=two +c=NULL",
		"4 delete " + odd + " -Id=3",
		"5 update public.keyless -a=1 -b=x +a=1 +b=y",
		"6 delete public.keyless -a=2 -b=NULL",
		"7 truncate public.keyless RESTART IDENTITY CASCADE",
	})
	conn := connect(t, f.dsn)
	list, err := lost.Summaries(testContext(t), conn, f.source.Link)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	s := list[0]
	if !s.Complete || s.Discarded || s.Problem != nil || s.Transactions != 7 || s.Changes != 8 || s.First.After(s.Last) || s.Epoch != 2 || s.Parted != f.parted {
		t.Errorf("summary %+v", s)
	}
	want := []lost.TableSummary{{Table: odd, Inserts: 1, Updates: 2, Deletes: 1}, {Table: "public.keyless", Inserts: 1, Updates: 1, Deletes: 1, Truncates: 1}}
	if !slices.Equal(s.Tables, want) {
		t.Errorf("tables %+v, want %+v", s.Tables, want)
	}
	f.slotStands(t)
}

// slotStands checks that the slot was not moved past the parting.
func (f *former) slotStands(t testing.TB) {
	t.Helper()
	if got := pgtest.Query(t, f.dsn, `SELECT confirmed_flush_lsn <= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2`, f.parted.String(), f.source.Object())[0][0]; got != "t" {
		t.Errorf("the slot has moved")
	}
}

// shapes are tables of which the rows have to be redone exactly.
var shapes = []string{
	`CREATE TYPE public.mood AS ENUM ('sad', 'it''s ok')`,
	`CREATE TYPE public.pair AS (a int, b text)`,
	`CREATE EXTENSION hstore SCHEMA public`, `CREATE EXTENSION citext SCHEMA public`,
	`CREATE TABLE public.every ("Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, i2 smallint, f8 double precision, num numeric, t text, c char(5), b bytea,
		d date, tstz timestamptz, iv interval, bo boolean, pt point, j json, jb jsonb, x xml, ta text[], mood public.mood, p public.pair, r int4range, h public.hstore, ct public.citext,
		u uuid, ia int[], gen int GENERATED ALWAYS AS (i2 * 2) STORED)`,
	`CREATE TABLE public.keyless (a int, j json, pt point, h public.hstore, f float4, m money)`,
	`CREATE TABLE public.composite (a text, b int, note text, PRIMARY KEY (b, a))`,
	`CREATE TABLE public.chosen (id int NOT NULL, code text NOT NULL UNIQUE, note text)`,
	`ALTER TABLE public.chosen REPLICA IDENTITY USING INDEX chosen_code_key`,
	`CREATE TABLE public.whole (id int PRIMARY KEY, note text)`, `ALTER TABLE public.whole REPLICA IDENTITY FULL`,
	`CREATE TABLE public.parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)`,
	`CREATE TABLE public.parted_old PARTITION OF public.parted FOR VALUES FROM (MINVALUE) TO ('2020-01-01')`,
	`CREATE TABLE public.parted_new PARTITION OF public.parted FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)`,
	`CREATE TABLE public.parent (id int PRIMARY KEY, a text)`, `CREATE TABLE public.child (extra int, PRIMARY KEY (id)) INHERITS (public.parent)`,
	`CREATE TABLE public.toast (id int PRIMARY KEY, n int, big text)`,
	`CREATE TABLE public.none ()`,
	`CREATE TABLE public.always (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, t text)`,
	insertEvery,
	`INSERT INTO public.keyless SELECT i / 2, '{"a" : 1}', '(1,2)', 'a=>1,b=>NULL', 0.1, '-12.34' FROM generate_series(1, 6) i`,
	`INSERT INTO public.composite SELECT 'k''' || i, i, 'n' FROM generate_series(1, 5) i`,
	`INSERT INTO public.chosen SELECT i, 'c' || i, 'n' FROM generate_series(1, 5) i`,
	`INSERT INTO public.whole SELECT i, 'n' FROM generate_series(1, 5) i`,
	`INSERT INTO public.parted SELECT i, '2019-12-30'::date + i FROM generate_series(1, 6) i`,
	`INSERT INTO public.parent VALUES (1, 'p')`, `INSERT INTO public.child VALUES (2, 'c', 1)`,
	`INSERT INTO public.toast SELECT i, 0, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 400) j) FROM generate_series(1, 4) i`,
	`INSERT INTO public.always (id, t) SELECT i, 'a' FROM generate_series(1, 4) i`,
}

const insertEvery = `INSERT INTO public.every (i2, f8, num, t, c, b, d, tstz, iv, bo, pt, j, jb, x, ta, mood, p, r, h, ct, u, ia) VALUES
	(-32768, '-Infinity', 'NaN', E'tab\t\\ "q" ''s'' $$', 'ab', '\x00ff0a5c', '4713-01-01 BC', '-infinity', '-1 mon +2 days -03:04:05.678', true, '(1,-2)', '{"k" : [1, null]}', '{"k":1e400}',
	 '<a b="1">é</a>', '{"a,b",NULL,"\"q\\"}', 'it''s ok', '(1,"x,y")', '[1,10)', 'a=>1,b=>NULL', 'CaSe', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{{1,2},{3,NULL}}'),
	(NULL, '0.1', 1e-130, '', NULL, '', 'infinity', '2024-02-29 12:00:00.123456+02', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, NULL, 'empty', '', NULL, NULL, NULL)`

// losses touch the rows of shapes in each way that can be told whole.
var losses = []string{
	insertEvery,
	`UPDATE public.every SET i2 = coalesce(i2, 0) / 2 + 1, ta = ta || '{new}', t = t || 'é' WHERE "Id" % 2 = 1`,
	`DELETE FROM public.every WHERE "Id" = 2`,
	`UPDATE public.keyless SET a = 9, j = '[]' WHERE ctid IN (SELECT ctid FROM public.keyless WHERE a = 1 LIMIT 1)`,
	`DELETE FROM public.keyless WHERE ctid IN (SELECT ctid FROM public.keyless WHERE a = 2 LIMIT 1)`,
	`INSERT INTO public.keyless VALUES (NULL, NULL, NULL, NULL, 'NaN', NULL), (7, NULL, '(0.1,1e300)', NULL, 1e-30, 0)`,
	`DELETE FROM public.keyless WHERE a IS NULL`,
	`UPDATE public.composite SET a = a || '\', b = b + 100 WHERE b % 2 = 0`,
	`DELETE FROM public.composite WHERE b = 1`,
	`UPDATE public.chosen SET code = code || 'x', note = NULL WHERE id < 3`, `DELETE FROM public.chosen WHERE id = 4`,
	`UPDATE public.whole SET note = 'changed', id = id + 10 WHERE id < 3`, `DELETE FROM public.whole WHERE id = 4`,
	`UPDATE public.parted SET at = at + 5 WHERE id < 4`, `INSERT INTO public.parted VALUES (50, '1999-01-01')`, `DELETE FROM public.parted WHERE id = 6`,
	`UPDATE public.parent SET a = a || 'x'`, `INSERT INTO public.child VALUES (3, 'd', 2)`,
	`UPDATE public.toast SET n = n + 1 WHERE id < 3`, `DELETE FROM public.toast WHERE id = 4`,
	`INSERT INTO public.none DEFAULT VALUES`,
	`UPDATE public.always SET t = 'b' WHERE id < 3`, `INSERT INTO public.always (id, t) VALUES (9, 'c')`,
	`BEGIN; INSERT INTO public.whole VALUES (70, 'a'); SAVEPOINT s; INSERT INTO public.whole VALUES (71, 'b'); ROLLBACK TO s; INSERT INTO public.whole VALUES (72, 'c'); COMMIT`,
	`BEGIN; INSERT INTO public.whole VALUES (80, 'prepared'); PREPARE TRANSACTION 'lost'`, `COMMIT PREPARED 'lost'`,
}

// TestRedoEndsWhereTheFormerPrimaryWas runs the SQL of the report on a copy of the
// database as it was at the parting.
func TestRedoEndsWhereTheFormerPrimaryWas(t *testing.T) {
	for name, server := range map[string]*pgtest.Server{"": pgtest.Shared(t), "18, which sends generated columns": pgtest.Start(t, pgtest.WithMajor(18), pgtest.WithSetting("max_prepared_transactions", "5"))} {
		t.Run(name, func(t *testing.T) {
			f := part(t, server, shapes...)
			pgtest.Exec(t, f.dsn, losses...)
			f.collect(t)
			pgtest.Exec(t, f.before, redo(t, f.all(t, lost.Limit{Changes: 7})))
			pgtest.Equal(t, f.dsn, f.before)
			f.slotStands(t)
		})
	}
}

// TestSchemaChangesAreToldAndRedone loses commands of several kinds with their rows.
func TestSchemaChangesAreToldAndRedone(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY, a text)`, `INSERT INTO public.t VALUES (1, 'a'), (2, 'b')`)
	pgtest.Exec(t, f.dsn, `SET search_path = public; CREATE TABLE fresh (id serial PRIMARY KEY, n int); INSERT INTO fresh (n) VALUES (5)`,
		`ALTER TABLE public.t ADD COLUMN b int DEFAULT 7`, `UPDATE public.t SET b = 8 WHERE id = 2`,
		`ALTER TABLE public.t ADD COLUMN stamp timestamptz DEFAULT clock_timestamp()`)
	f.collect(t)
	list := f.all(t, lost.Limit{})
	var tags []string
	var rewritten string
	for _, x := range list {
		for _, c := range x.Changes {
			if c.Kind == lost.Schema {
				tag, subject, text := c.SchemaChange()
				tags = append(tags, tag+" "+subject)
				if text == "" {
					t.Errorf("%s has no text", tag)
				}
			}
			if c.Kind == lost.Rewrite {
				rewritten += c.Table.String()
			}
		}
	}
	if got := strings.Join(tags, ", "); !strings.HasPrefix(got, "CREATE TABLE public.fresh") || strings.Count(got, "ALTER TABLE public.t") != 2 || rewritten != "public.t" {
		t.Errorf("tags %s, rewritten %s", got, rewritten)
	}
	pgtest.Exec(t, f.before, redo(t, list))
	pgtest.Exec(t, f.dsn, `ALTER TABLE public.t DROP COLUMN stamp`)
	pgtest.Exec(t, f.before, `ALTER TABLE public.t DROP COLUMN stamp`)
	pgtest.Equal(t, f.dsn, f.before)
}

// TestWhatIsToastedIsMarked loses an update of a row whose long value stays.
func TestWhatIsToastedIsMarked(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY, n int, big text)`,
		`INSERT INTO public.t SELECT 1, 1, string_agg(md5(j::text), '') FROM generate_series(1, 400) j`)
	pgtest.Exec(t, f.dsn, `UPDATE public.t SET n = 2`, `UPDATE public.t SET id = 5`)
	f.collect(t)
	list := f.all(t, lost.Limit{})
	checkLines(t, summary(list), []string{"1 update public.t +id=1 +n=2 +big=unchanged", "2 update public.t -id=1 +id=5 +n=2 +big=unchanged"})
	pgtest.Exec(t, f.before, redo(t, list))
	pgtest.Equal(t, f.dsn, f.before)
}

// TestLongValuesLieInPieces loses values of several megabytes, which a file holds
// on their way.
func TestLongValuesLieInPieces(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY, big text, note text)`, `ALTER TABLE public.t ALTER big SET STORAGE EXTERNAL`)
	pgtest.Exec(t, f.dsn, `INSERT INTO public.t SELECT 1, repeat('añ€𝄞-', 900000), 'behind'`, `INSERT INTO public.t VALUES (2, repeat('x', 1048577), NULL)`)
	f.collect(t)
	if f.spills != 1 {
		t.Errorf("%d messages went through a file", f.spills)
	}
	short := f.all(t, lost.Limit{Long: 10})
	v := short[0].Changes[0].New[1]
	if v.State != lost.Long || v.Text != "añ€𝄞" || v.Hex || v.Bytes != 900000*11 {
		t.Errorf("%s %q of %d bytes", v.State, v.Text, v.Bytes)
	}
	if sql, complete := short[0].Changes[0].Redo(); complete || !strings.HasPrefix(sql, `-- column "big" is left out: its value has 9900000 bytes`) {
		t.Errorf("%t: %.200s", complete, sql)
	}
	pgtest.Exec(t, f.before, redo(t, f.all(t, lost.Limit{Long: 32 << 20})))
	pgtest.Equal(t, f.dsn, f.before)
}

// TestOtherEncodings keeps the bytes of databases that are not in UTF8.
func TestOtherEncodings(t *testing.T) {
	for _, encoding := range []string{"LATIN1", "SQL_ASCII", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			server := pgtest.Start(t, pgtest.WithInitdbArgs("--encoding="+encoding, "--locale=C"))
			f := part(t, server, `CREATE TABLE public.t (id text PRIMARY KEY, a text)`)
			word := map[string]string{"LATIN1": "naïve", "SQL_ASCII": "ü", "EUC_JP": "日本"}[encoding]
			pgtest.Exec(t, f.dsn, `SET client_encoding = 'UTF8'; INSERT INTO public.t VALUES ('`+word+`', 'x'); UPDATE public.t SET id = '`+word+word+`'`)
			if encoding == "SQL_ASCII" {
				pgtest.Exec(t, f.dsn, `INSERT INTO public.t VALUES (E'\xff\xfe', E'\xe4')`)
			}
			f.collect(t)
			list := f.all(t, lost.Limit{})
			if got := list[0].Changes[0].New[0].Text; got != word {
				t.Errorf("got %q", got)
			}
			pgtest.Exec(t, f.before, redo(t, list))
			for _, dsn := range []string{f.before, f.dsn} {
				if got := pgtest.Query(t, dsn, `SELECT string_agg(encode(convert_to(id || a, getdatabaseencoding()::name), 'hex'), ',' ORDER BY id) FROM public.t`)[0][0]; got == "" ||
					got != pgtest.Query(t, f.dsn, `SELECT string_agg(encode(convert_to(id || a, getdatabaseencoding()::name), 'hex'), ',' ORDER BY id) FROM public.t`)[0][0] {
					t.Errorf("%s", got)
				}
			}
		})
	}
}

// TestCollectingGoesOn is ended in the middle of much, begun again, and begun once
// more after somebody committed what had been prepared.
func TestCollectingGoesOn(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY, a text)`)
	pgtest.Exec(t, f.dsn, `BEGIN; INSERT INTO public.t VALUES (-1, 'prepared'); PREPARE TRANSACTION 'later'`)
	for i := range 6 {
		pgtest.Exec(t, f.dsn, fmt.Sprintf(`INSERT INTO public.t SELECT i, repeat('x', 1000) FROM generate_series(%d, %d) i`, i*20000, i*20000+19999))
	}
	// One run ends when a part is recorded.
	ctx, stop := context.WithCancel(testContext(t))
	watcher := connect(t, f.dsn)
	done := make(chan error, 1)
	go func() {
		c := &lost.Collector{Parting: f.parting(), DSN: f.source.DSN, Name: "sales", Source: f, Spill: f.spill, Log: slog.New(slog.DiscardHandler)}
		done <- c.Run(ctx)
	}()
	pgtest.Eventually(t, time.Minute, func() error {
		var n int64
		if err := watcher.QueryRow(testContext(t), `SELECT count(*) FROM twinspan.lost_transaction`).Scan(&n); err != nil || n == 0 {
			return fmt.Errorf("%d transactions, %v", n, err)
		}
		return nil
	})
	stop()
	ended := <-done
	count := func() string {
		return pgtest.Query(t, f.dsn, `SELECT count(*) || ' ' || count(DISTINCT new_row[1]) FROM twinspan.lost_change`)[0][0]
	}
	first := count()
	f.collect(t)
	if got := count(); got != "120000 120000" {
		t.Errorf("%s rows, after %s when it was ended (%v)", got, first, ended)
	}
	pgtest.Exec(t, f.dsn, `COMMIT PREPARED 'later'`)
	f.collect(t)
	f.collect(t)
	if got := count(); got != "120001 120001" {
		t.Errorf("%s rows", got)
	}
	if list := f.all(t, lost.Limit{Changes: 50000}); len(list) != 7 || list[6].Changes[0].New[0].Text != "-1" {
		t.Errorf("%d transactions", len(list))
	}
	f.slotStands(t)
}

// TestASlotThatIsGone is told, and is no error.
func TestASlotThatIsGone(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY)`)
	pgtest.Query(t, f.dsn, `SELECT pg_drop_replication_slot($1)`, f.source.Object())
	f.collect(t)
	list, err := lost.Summaries(testContext(t), connect(t, f.dsn), f.source.Link)
	if err != nil || len(list) != 1 || list[0].Problem == nil || list[0].Problem.Code != "slot_lost" || list[0].Complete {
		t.Fatalf("%+v, %v", list, err)
	}
}

// TestDiscarded leaves the fact alone.
func TestDiscarded(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY, a text)`)
	pgtest.Exec(t, f.dsn, `INSERT INTO public.t VALUES (1, repeat('x', 2000000))`)
	f.collect(t)
	conn := connect(t, f.dsn)
	if err := lost.Discard(testContext(t), conn, f.source.Link, 3); err == nil {
		t.Error("what is not there was discarded")
	}
	if err := lost.Discard(testContext(t), conn, f.source.Link, 2); problem.CodeOf(err) != "lost_needed" {
		t.Errorf("what a rejoin needs was discarded: %v", err)
	}
	pgtest.Exec(t, f.dsn, `UPDATE twinspan.lost SET mended = true`)
	if err := lost.Discard(testContext(t), conn, f.source.Link, 2); err != nil {
		t.Fatal(err)
	}
	list, err := lost.Summaries(testContext(t), conn, f.source.Link)
	if err != nil || len(list) != 1 || !list[0].Discarded || list[0].Transactions != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	left := pgtest.Query(t, f.dsn, `SELECT (SELECT count(*) FROM twinspan.lost_change) + (SELECT count(*) FROM twinspan.lost_table) + (SELECT count(*) FROM twinspan.lost_value)
		+ (SELECT count(*) FROM twinspan.lost_transaction)`)[0][0]
	if left != "0" {
		t.Errorf("%s rows are left", left)
	}
}
