package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func code(err error) string { return problem.CodeOf(err) }

func TestPlainChanges(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (id bigint PRIMARY KEY, n int, v text)", "CREATE TABLE log (at timestamptz, v text)", "ALTER TABLE log REPLICA IDENTITY FULL")
		p.do("INSERT INTO t SELECT i, i % 10, 'v' || i FROM generate_series(1, 1000) i",
			"UPDATE t SET n = n + 1 WHERE id % 3 = 0", "UPDATE t SET v = NULL WHERE id % 7 = 0", "DELETE FROM t WHERE id % 11 = 0",
			"INSERT INTO log SELECT now(), 'x' || i FROM generate_series(1, 100) i", "INSERT INTO t VALUES (-5, 0, '')", "UPDATE t SET n = 5 WHERE id = 1")
		a := p.apply()
		p.same()
		s := a.Status()
		if s.Transactions != 7 || s.Fallbacks != 0 || s.Groups != 1 || s.Applied < p.progress() || s.LastCommit.IsZero() {
			t.Errorf("status is %+v", s)
		}
		p.do("UPDATE t SET v = repeat(v, 3)", "DELETE FROM t WHERE n = 3")
		p.apply()
		p.same()
	})
}

// single cuts a tape into transactions that come one after the other, and a position.
func (s *tape) single(until lsn.LSN) {
	all := s.items[0].Records
	s.items = nil
	for len(all) > 0 {
		end := 0
		for {
			n := 4 + int(all[end+2])<<8 + int(all[end+3])
			kind := all[end+4]
			end += n
			if kind == 'C' {
				break
			}
		}
		s.items = append(s.items, Item{Records: all[:end]})
		all = all[end:]
	}
	s.items = append(s.items, Item{Reached: until})
	s.ready = func() bool { return false }
}

func TestAnIdleStreamIsAppliedOneByOne(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	for i := range 5 {
		p.do(fmt.Sprintf("INSERT INTO t VALUES (%d, 'x')", i))
	}
	until := p.position()
	a := p.applier(until)
	tape := p.record(p.messages(), until, nil)
	tape.single(until)
	tape.took = func(n int) {
		// Whatever came before is there before more is asked for.
		if got := pgtest.Query(t, p.target, "SELECT count(*) FROM t")[0][0]; got != fmt.Sprint(min(n-1, 5)) {
			t.Errorf("before item %d there are %s rows", n, got)
		}
	}
	if err := a.Run(testContext(t), tape); err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s.Groups != 5 || s.Applied != until {
		t.Errorf("status is %+v", s)
	}
	if got := p.progress(); got != until {
		t.Errorf("the origin stands at %s, want %s", got, until)
	}
	p.same()
}

const typesSchema = `
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE DOMAIN posint AS int CHECK (value > 0);
CREATE DOMAIN ints AS int[];
CREATE TYPE floatrange AS RANGE (subtype = float8);
CREATE TABLE types (
    id bigint PRIMARY KEY,
    b bool, i2 smallint, i4 int, i8 bigint, num numeric, num2 numeric(10,2), f4 real, f8 double precision, cash money,
    c "char", ch char(10), vc varchar(20), tx text, nm name, by bytea,
    d date, tm time, tmz timetz, ts timestamp, tsz timestamptz, iv interval,
    u uuid, js json, jb jsonb, x xml,
    pt point, ln line, ls lseg, bx box, pa path, po polygon, ci circle,
    inet inet, cidr cidr, mac macaddr, mac8 macaddr8,
    bi bit(5), vb varbit, tsv tsvector, tsq tsquery, ir int4range, nr numrange, tr tstzrange, mr int4multirange,
    ia int[], ta text[], na numeric[], ja jsonb[], m mood, pi posint, di ints, fr floatrange,
    lsn pg_lsn, oid oid, xid xid8, snap pg_snapshot, tid tid
)`

// extended are the types that only cross as text.
const extendedSchema = typesSchema + `;
CREATE TYPE pos AS (x int, m mood, "odd name" text);
ALTER TABLE types ADD ma mood[], ADD p pos, ADD pa2 pos[], ADD rc regclass, ADD rt regtype, ADD acl aclitem`

func typeRows(extended bool) []string {
	row := func(id string, values ...string) string {
		return "INSERT INTO types VALUES (" + id + ", " + strings.Join(values, ", ") + ")"
	}
	first := []string{
		"true", "-32768", "2147483647", "-9223372036854775808", "123456789012345678901234567890.000123400", "12345678.90", "3.4028235e38", "5e-324", "'-12.34'",
		"'x'", "'ab'", "'vc'", `E'tab\there\nline\\back\r' || chr(8364)`, "'nm'", `'\x00ff5c0a'`,
		"'4713-01-01 BC'", "'24:00:00'", "'12:00:00.123456+05:30'", "'294276-12-31 23:59:59.999999'", "'0044-03-15 12:00:00+00 BC'", "'1 year 2 mons -3 days 04:05:06.789'",
		"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", `'{"b" : 1, "a":[1, 2],  "b":2}'`, `'{"b":1.50,"a":"\\u20ac"}'`, "'<a>x &amp; y</a>'",
		"'(1.1,2.2)'", "'{1,2,3}'", "'[(0,0),(1,1)]'", "'(1,1),(0,0)'", "'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1),(2,0))'", "'<(1,2),3>'",
		"'192.168.1.5/24'", "'10.0.0.0/8'", "'08:00:2b:01:02:03'", "'08:00:2b:01:02:03:04:05'",
		"B'10101'", "B'1'", "to_tsvector('simple', 'a fat cat')", "'fat & (cat | rat)'", "'[1,10)'", "'(1.5,)'", "'[2020-01-01 00:00:00+00,)'", "'{[1,3),[5,8)}'",
		"'{{1,2},{3,NULL}}'", `'{"a,b","c\"d",NULL,"","NULL","\\"}'`, "'[2:3]={1.10,NaN}'", `ARRAY['{"a":1}'::jsonb]`, `'it''s "ok"'`, "7", "'{1,2}'", "'[1.5,2.5]'",
		"'16/B374D848'", "4294967295", "'123456789012'", "'10:20:10,14,15'", "'(1,2)'",
	}
	special := make([]string, len(first))
	for i := range special {
		special[i] = "NULL"
	}
	for i, v := range map[int]string{4: "'NaN'", 5: "'NaN'", 6: "'NaN'", 7: "'-Infinity'", 15: "'infinity'", 18: "'-infinity'", 19: "'infinity'", 12: "''", 14: "''", 44: "'{}'", 45: "'{}'", 40: "'empty'"} {
		special[i] = v
	}
	nan := append([]string{}, special...)
	nan[4], nan[6], nan[7] = "'Infinity'", "'-0'", "'-0'"
	if extended {
		first = append(first, `'{sad,"it''s \"ok\""}'`, `ROW(1, 'sad', 'a"b,c')`, `ARRAY[ROW(1, 'sad', NULL)::pos, NULL]`, "'pg_class'", "'int4'", "'postgres=r/postgres'")
		special = append(special, "NULL", "NULL", "NULL", "NULL", "NULL", "NULL")
		nan = append(nan, "'{}'", "ROW(NULL, NULL, '')", "'{}'", "NULL", "NULL", "NULL")
	}
	return []string{row("1", first...), row("2", special...), row("3", nan...)}
}

func testTypes(t *testing.T, text, extended bool) {
	schema := typesSchema
	if extended {
		schema = extendedSchema
	}
	p := newPair(t, text, schema)
	p.do(typeRows(extended)...)
	// Many rows at once, so that COPY and set-based statements carry every type.
	var columns []string
	for _, r := range pgtest.Query(t, p.source, "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 'types'::regclass AND attnum > 1 ORDER BY attnum") {
		columns = append(columns, r[0])
	}
	all := strings.Join(columns, ", ")
	p.do("INSERT INTO types SELECT 10 + i * 3 + id, " + all + " FROM types, generate_series(0, 19) i WHERE id < 4")
	p.apply()
	p.same()
	p.do("UPDATE types SET ("+all+") = (SELECT "+all+" FROM types o WHERE o.id = 1 + types.id % 3) WHERE id > 10",
		"UPDATE types SET i4 = 0 WHERE id = 2", "DELETE FROM types WHERE id BETWEEN 20 AND 40")
	a := p.apply()
	p.same()
	if f := a.Status().Fallbacks; f != 0 {
		t.Errorf("%d fallbacks", f)
	}
	// Without a key every type is compared.
	p.do("ALTER TABLE types REPLICA IDENTITY FULL", "ALTER TABLE types DROP CONSTRAINT types_pkey")
	pgtest.Exec(t, p.target, "ALTER TABLE types DROP CONSTRAINT types_pkey")
	p.do("UPDATE types SET i4 = 99 WHERE id < 4", "DELETE FROM types WHERE id IN (1, 2, 50)", "UPDATE types SET tx = 'new', js = '[]' WHERE id IN (3, 60)")
	p.apply()
	p.same()
}

func TestEveryType(t *testing.T) {
	both(t, func(t *testing.T, text bool) { testTypes(t, text, false) })
}

func TestEveryTypeThatNeedsText(t *testing.T) { testTypes(t, true, true) }

func TestBinaryOfTypesThatNeedTextIsRefused(t *testing.T) {
	p := newPair(t, false, extendedSchema)
	p.do("INSERT INTO types (id, i4) VALUES (1, 1)") // NULL crosses in any form
	p.apply()
	p.same()
	at := p.progress()
	p.do("BEGIN; INSERT INTO types (id, i4) VALUES (2, 1); INSERT INTO types (id, ma) VALUES (3, '{sad}'); COMMIT")
	_, err := p.try()
	if code(err) != "stream_needs_text" || problem.KindOf(err) != problem.Transient {
		t.Fatalf("got %v", err)
	}
	if got := pgtest.Query(t, p.target, "SELECT count(*) FROM types")[0][0]; got != "1" {
		t.Errorf("%s rows", got)
	}
	if got := p.progress(); got != at {
		t.Errorf("moved from %s to %s", at, got)
	}
	p.text = true
	p.apply()
	p.same()
}
