package test

import (
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A first copy that is written with the owner's rights, as code of users runs at the table, reads values by their types' input
// functions, whatever casts from strings there are.
func TestFirstCopyTakesNoUsersCast(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "casts")
	a, b := p.A.Server.DSN("casts"), p.B.Server.DSN("casts")
	pgtest.Exec(t, a, `CREATE ROLE caster`, `CREATE SCHEMA s AUTHORIZATION caster`, `SET ROLE caster; SET search_path = s; CREATE TYPE one AS (n int, t text); CREATE TYPE two AS (n int, t text); CREATE TYPE three AS (n int, t text); CREATE DOMAIN of_one AS one;
		CREATE FUNCTION f1(text) RETURNS one LANGUAGE sql IMMUTABLE AS $$SELECT ROW(-1, 'cast')::s.one$$; CREATE FUNCTION f2(varchar) RETURNS two LANGUAGE sql IMMUTABLE AS $$SELECT ROW(-1, 'cast')::s.two$$;
		CREATE FUNCTION f3(text) RETURNS three LANGUAGE sql IMMUTABLE AS $$SELECT ROW(-1, 'cast')::s.three$$; CREATE FUNCTION f4(varchar) RETURNS three LANGUAGE sql IMMUTABLE AS $$SELECT ROW(-1, 'cast')::s.three$$;
		CREATE FUNCTION f5(bpchar) RETURNS three LANGUAGE sql IMMUTABLE AS $$SELECT ROW(-1, 'cast')::s.three$$; CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'`,
		`CREATE CAST (text AS s.one) WITH FUNCTION s.f1(text) AS ASSIGNMENT`, `CREATE CAST (varchar AS s.two) WITH FUNCTION s.f2(varchar)`, `CREATE CAST (text AS s.three) WITH FUNCTION s.f3(text) AS IMPLICIT`, `CREATE CAST (varchar AS s.three) WITH FUNCTION s.f4(varchar)`, `CREATE CAST (bpchar AS s.three) WITH FUNCTION s.f5(bpchar)`,
		`SET ROLE caster; SET search_path = s; CREATE TABLE t (id int PRIMARY KEY, a one, b of_one, c two, d three, e one[], f bit(3), g int GENERATED ALWAYS AS (twice(id)) STORED)`,
		`INSERT INTO s.t SELECT i, ROW(i, E'a "q" \\ ''s')::s.one, ROW(i, '{,}')::s.one, ROW(i, ' ')::s.two, ROW(i, E'"\\{}, x ')::s.three, ARRAY[ROW(1, 'x'), NULL]::s.one[], b'101' FROM generate_series(1, 50) i`,
		`INSERT INTO s.t (id) VALUES (100); INSERT INTO s.t (id, d) VALUES (101, ROW(NULL, NULL)::s.three), (102, ROW(1, '')::s.three)`)
	p.Create(t, "casts", "casts")
	p.WaitPhase(t, "casts", api.Replicating)
	rows := `SELECT id, format('%s', a), format('%s', b), format('%s', c), format('%s', d), format('%s', e), f, g, a IS NULL, d IS NULL FROM s.t ORDER BY id`
	here, there := pgtest.Query(t, a, rows), pgtest.Query(t, b, rows)
	if len(here) != 53 || fmt.Sprintf("%q", here) != fmt.Sprintf("%q", there) {
		for i := range min(len(here), len(there)) {
			if fmt.Sprintf("%q", here[i]) != fmt.Sprintf("%q", there[i]) {
				t.Fatalf("%d and %d rows; the primary has %q, the twin %q", len(here), len(there), here[i], there[i])
			}
		}
		t.Fatalf("%d and %d rows", len(here), len(there))
	}
}
