package sequence

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// session opens a session as a link's control session is.
func session(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	dsn, err := pg.ParseDSN(pgtest.Shared(t).DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dsn.Connect(t.Context(), pg.Session{Name: "test/control", Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

func all(t *testing.T, conn *pgx.Conn, r *Reader, exact bool) map[string]Sequence {
	t.Helper()
	list, err := r.Read(t.Context(), conn, exact)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Sequence{}
	for _, s := range list {
		out[s.Name.String()] = s
	}
	return out
}

// The arithmetic and the server's nextval agree, value for value.
func TestTheServerCountsAlike(t *testing.T) {
	database := pgtest.Shared(t).Database(t)
	dsn := pgtest.Shared(t).DSN(database)
	pgtest.Exec(t, dsn,
		`CREATE SEQUENCE up INCREMENT 3 MINVALUE -5 MAXVALUE 20 START 2`,
		`CREATE SEQUENCE down INCREMENT -4 MINVALUE -20 MAXVALUE 7 CYCLE`,
		`CREATE SEQUENCE round INCREMENT 7 MINVALUE 1 MAXVALUE 20 CYCLE`,
		`CREATE SEQUENCE edge MINVALUE 9223372036854775800 START 9223372036854775803`,
		`CREATE SEQUENCE moved MAXVALUE 30; SELECT setval('moved', 17, false)`)
	conn := session(t, database)
	var r Reader
	for name, s := range all(t, conn, &r, true) {
		at := s.State
		for n := range uint64(20) {
			if got := s.Ahead(s.State, n); got != at {
				t.Errorf("%s: %d calls lead to %+v, the server stands at %+v", name, n, got, at)
			}
			var value int64
			err := conn.QueryRow(t.Context(), `SELECT nextval($1)`, name).Scan(&value)
			if pg.SQLState(err) == "2200H" {
				if s.Left(at) != 0 {
					t.Errorf("%s: the server is at its end, %d should be left", name, s.Left(at))
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			at = State{value, true}
		}
	}
}

func TestEverySequenceIsReadAndSet(t *testing.T) {
	server := pgtest.Shared(t)
	from, to := server.Database(t), server.Database(t)
	make := []string{
		`CREATE SCHEMA "Odd ""one"`, `CREATE SEQUENCE "Odd ""one"."a.b ""c"" '$1" INCREMENT -2`,
		`CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n bigserial)`,
		`CREATE SEQUENCE never START 42`, `CREATE SEQUENCE set_only`, `CREATE SEQUENCE cached CACHE 50`,
		`CREATE SCHEMA twinspan; CREATE SEQUENCE twinspan.own`,
		`DO $$ BEGIN FOR i IN 1..1100 LOOP EXECUTE format('CREATE SEQUENCE many_%s', i); END LOOP; END $$`,
	}
	pgtest.Exec(t, server.DSN(from), make...)
	pgtest.Exec(t, server.DSN(to), make...)
	pgtest.Exec(t, server.DSN(from), `SELECT nextval('"Odd ""one"."a.b ""c"" ''$1"') FROM generate_series(1, 5)`, `SELECT setval('set_only', 99, false)`,
		`SELECT nextval('cached')`, `INSERT INTO t DEFAULT VALUES`, `SELECT nextval('many_' || i) FROM generate_series(1, 1100, 3) i`,
		`CREATE TEMPORARY SEQUENCE passing`)
	a, b := session(t, from), session(t, to)
	var ra, rb Reader
	list, err := ra.Read(t.Context(), a, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1106 {
		t.Fatalf("%d sequences were read", len(list))
	}
	missing, err := Set(t.Context(), b, append(slices.Clone(list), Sequence{Name: sqlname.Table{Schema: "public", Name: "not here"}},
		Sequence{Name: sqlname.Table{Schema: "public", Name: "t_id_seq"}, State: State{1 << 40, true}}))
	if err != nil {
		t.Fatal(err)
	}
	if len(missing) != 2 || missing[0].Name != "not here" || missing[1].Name != "t_id_seq" {
		t.Errorf("missing: %v", missing)
	}
	if again, err := rb.Read(t.Context(), b, false); err != nil || !slices.Equal(again, list) {
		t.Errorf("the copy's sequences differ: %v", err)
	}
	if got := all(t, b, &rb, true)[`public.set_only`]; got.State != (State{99, false}) {
		t.Errorf("set_only: %+v", got)
	}

	// What is remembered does not hide what happens.
	pgtest.Exec(t, server.DSN(from), `SELECT nextval('never')`, `TRUNCATE t RESTART IDENTITY`, `DROP SEQUENCE cached`, `CREATE SEQUENCE newer`)
	now := all(t, a, &ra, false)
	if now["public.never"].State != (State{42, true}) || now["public.t_id_seq"].State != (State{1, false}) || now["public.newer"].State != (State{1, false}) {
		t.Errorf("after changes: %+v %+v %+v", now["public.never"], now["public.t_id_seq"], now["public.newer"])
	}
	if _, there := now["public.cached"]; there {
		t.Error("a dropped sequence is still read")
	}
}

// A sequence that a transaction drops is left out, one that it alters is read
// another way, and nothing waits for either.
func TestLockedSequencesAreLeftOut(t *testing.T) {
	server := pgtest.Shared(t)
	database := server.Database(t)
	pgtest.Exec(t, server.DSN(database), `DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('CREATE SEQUENCE s%s', i); END LOOP; END $$`, `SELECT nextval('s7')`)
	conn := session(t, database)
	var r Reader
	all(t, conn, &r, false)
	other := pgtest.Conn(t, server.DSN(database))
	if _, err := other.Exec(t.Context(), `BEGIN; ALTER SEQUENCE s7 CACHE 10; DROP SEQUENCE s20`); err != nil {
		t.Fatal(err)
	}
	got := all(t, conn, &r, true)
	if _, there := got["public.s20"]; there || len(got) != 39 || got["public.s7"].State != (State{1, true}) {
		t.Errorf("%d were read, the dropped one: %v, the altered one: %+v", len(got), there, got["public.s7"])
	}
	if _, err := other.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if got := all(t, conn, &r, false); len(got) != 40 {
		t.Errorf("after the end of the transaction: %d", len(got))
	}
}

func TestColumnsPullTheirSequences(t *testing.T) {
	server := pgtest.Shared(t)
	database := server.Database(t)
	pgtest.Exec(t, server.DSN(database),
		`CREATE TABLE owned (id serial PRIMARY KEY)`, `CREATE TABLE ident (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)`,
		`CREATE SEQUENCE shared INCREMENT -1`, `CREATE TABLE one (id int PRIMARY KEY DEFAULT nextval('shared'))`, `CREATE TABLE two (id int DEFAULT nextval('shared') UNIQUE)`,
		`CREATE TABLE bare (id serial)`, `CREATE TABLE "Odd ""t" ("Odd ""c" smallserial PRIMARY KEY)`,
		`CREATE TABLE parts (id bigserial, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)`, `CREATE TABLE parts_1 PARTITION OF parts DEFAULT`,
		`INSERT INTO owned VALUES (5), (70), (2147483647)`, `INSERT INTO ident OVERRIDING SYSTEM VALUE SELECT 900000`,
		`INSERT INTO one VALUES (-8)`, `INSERT INTO two VALUES (-33)`, `INSERT INTO bare VALUES (55)`, `INSERT INTO "Odd ""t" VALUES (3)`,
		`INSERT INTO parts VALUES (1234, '2020-01-01')`, `CREATE TABLE fine (id serial PRIMARY KEY)`, `INSERT INTO fine DEFAULT VALUES`)
	conn := session(t, database)
	list, err := new(Reader).Read(t.Context(), conn, true)
	if err != nil {
		t.Fatal(err)
	}
	behind, err := BehindColumns(t.Context(), conn, list)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range behind {
		lines = append(lines, fmt.Sprintf("%s %d", s.Name.Name, s.Last))
	}
	slices.Sort(lines)
	want := `Odd "t_Odd "c_seq 3, ident_id_seq 900000, owned_id_seq 70, parts_id_seq 1234, shared -33`
	if got := strings.Join(lines, ", "); got != want {
		t.Errorf("behind their columns are\n%s\nwant\n%s", got, want)
	}
}

// What a look costs, for docs/design/0010-sequences.md.
func BenchmarkLook(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		for _, called := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d sequences, called %v", n, called), func(b *testing.B) {
				server := pgtest.Shared(b)
				dsn := server.DSN(server.Database(b))
				for at := 0; at < n; at += 1000 {
					pgtest.Exec(b, dsn, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE SEQUENCE s%%s', i); IF %v THEN PERFORM nextval('s' || i); END IF; END LOOP; END $$`,
						at, min(at+1000, n)-1, called))
				}
				parsed, err := pg.ParseDSN(dsn)
				if err != nil {
					b.Fatal(err)
				}
				conn, err := parsed.Connect(b.Context(), pg.Session{Name: "bench/control"})
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close(b.Context())
				var r Reader
				w := NewWatch()
				for b.Loop() {
					list, err := r.Read(b.Context(), conn, false)
					if err != nil || len(list) != n {
						b.Fatal(len(list), err)
					}
					w.Observe(time.Now(), list)
				}
			})
		}
	}
}
