package rights_test

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/rights"
)

// A literal of a range compares its bounds where it is read, by what may be a function of a user's. Where the agent makes
// tables with such literals, none is called, each value is as it was written, and the functions are as before.
func TestLiteralsOfRangesCallNothing(t *testing.T) {
	w := newWorld(t)
	conn := connect(t, w.dsn)
	ctx := testContext(t)
	exec := func(sql string) error { return conn.PgConn().Exec(ctx, sql).Close() }
	for name, function := range map[string]string{
		"plpgsql":  `LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM nextval('s.calls'); RETURN btint4cmp(b.i, a.i); END $$`,
		"sql":      `LANGUAGE sql VOLATILE AS $$ SELECT nextval('s.calls'); SELECT btint4cmp(b.i, a.i) $$`,
		"standard": `RETURN btint4cmp(b.i, a.i) + 0 * nextval('s.calls')::int`,
	} {
		pgtest.Exec(t, w.dsn, strings.ReplaceAll(`CREATE SEQUENCE IF NOT EXISTS s.calls; CREATE TYPE s.NAME AS (i int);
			CREATE FUNCTION s.NAME_cmp(a s.NAME, b s.NAME) RETURNS int `+function+`;
			CREATE OPERATOR CLASS s.NAME_ops FOR TYPE s.NAME USING btree AS FUNCTION 1 s.NAME_cmp(s.NAME, s.NAME);
			CREATE TYPE s.NAME_range AS RANGE (SUBTYPE = s.NAME, SUBTYPE_OPCLASS = s.NAME_ops)`, "NAME", name))
		source := func() string {
			return pgtest.Query(t, w.dsn, `SELECT pg_get_functiondef('s.`+name+`_cmp'::regproc)`)[0][0]
		}
		before := source()
		made := strings.ReplaceAll(`CREATE TABLE s.NAME_table (i int, r s.NAME_range DEFAULT '["(9)","(1)"]', m s.NAME_multirange DEFAULT '{["(9)","(1)"]}');
			CREATE VIEW s.NAME_view AS SELECT '["(7)","(7)"]'::s.NAME_range`, "NAME", name)
		for range 2 { // what is known of the type stays in the session
			if err := exec(rights.Hushed(made)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if called := pgtest.Query(t, w.dsn, `SELECT is_called FROM s.calls`)[0][0]; called != "f" {
				t.Errorf("%s: its function was called", name)
			}
			if err := exec(strings.ReplaceAll(`DROP VIEW s.NAME_view; DROP TABLE s.NAME_table`, "NAME", name)); err != nil {
				t.Fatal(err)
			}
		}
		if after := source(); after != before {
			t.Errorf("%s: the function is now %s", name, after)
		}
		if err := exec(rights.Hushed(made)); err != nil {
			t.Fatal(err)
		}
		if got := pgtest.Query(t, w.dsn, `SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 's.`+name+`_table'::regclass ORDER BY adnum`); !strings.HasPrefix(got[0][0], `'["(9)","(1)"]'`) || !strings.HasPrefix(got[1][0], `'{["(9)","(1)"]}'`) {
			t.Errorf("%s: the defaults are %v", name, got)
		}
		// The same session then compares as the type does.
		if err := exec(`SELECT '["(1)","(9)"]'::s.` + name + `_range`); err == nil || !strings.Contains(err.Error(), "lower bound") {
			t.Errorf("%s: bounds in the wrong order: %v", name, err)
		}
		if err := exec(`SELECT '["(9)","(1)"]'::s.` + name + `_range; ALTER SEQUENCE s.calls RESTART`); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
