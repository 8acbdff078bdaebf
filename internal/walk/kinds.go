package walk

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// kind is a type of columns, with an expression of a value of it.
type kind struct {
	name    string
	since   int  // the release that has it
	key     bool // has an operator class for btree
	literal func(w *Walk) string
	// cast, when set, is an expression that brings the column %s to this type.
	cast string
}

func text(w *Walk) string {
	words := []string{"", " ", "a", "Ä", "ß", "straße", "zoë", `back\slash`, `"quoted"`, "it's", "line\nbreak", "\ttab", "NULL", "{}", "(,)", "\\N", "日本", "e\u0301", "$1", "%s", "--", "1"}
	s := one(w, words)
	if w.chance(12) {
		s += strings.Repeat(one(w, []string{"x", "long ", "ü"}), 3000)
	}
	return sqlname.Literal(s)
}

func number(w *Walk) string {
	return one(w, []string{"0", "1", "-1", "7", "32000", fmt.Sprint(w.rng.IntN(100)), fmt.Sprint(w.rng.IntN(20000) - 10000)})
}

func from(values ...string) func(*Walk) string {
	return func(w *Walk) string { return sqlname.Literal(one(w, values)) }
}

func arrayOf(element func(*Walk) string, sql string) func(*Walk) string {
	return func(w *Walk) string {
		var list []string
		for range w.rng.IntN(4) {
			e := element(w)
			if w.chance(5) {
				e = "NULL"
			}
			list = append(list, e)
		}
		return "ARRAY[" + strings.Join(list, ", ") + "]::" + sql + "[]"
	}
}

var moments = []string{"2024-03-05 06:07:08.123456", "1999-12-31 23:59:60", "0044-03-15 00:00:00 BC", "infinity", "-infinity", "2024-10-27 02:30:00", "1883-11-18 12:03:58", "294276-12-31"}
var spans = []string{"1 day", "-1 mon 3 days 00:00:01.5", "25:00", "1 year -1 mon", "0", "P1Y2M3DT4H5M6S", "100000:00:00"}

// kinds are built-in types of every category, and those that Setup makes.
var kinds = []kind{
	{name: "int", key: true, literal: number, cast: "(length(%s::text))::int"},
	{name: "bigint", key: true, literal: number, cast: "hashtext(%s::text)::bigint"},
	{name: "smallint", key: true, literal: number},
	{name: "numeric", key: true, literal: from("0", "0.00", "1.50", "-1e-20", "NaN", "123456789012345678901234567890.5", "1", "1.0"), cast: "length(%s::text)::numeric"},
	{name: "numeric(9,2)", key: true, literal: from("0", "1.5", "NaN", "-12.34")},
	{name: "float8", key: true, literal: from("0", "-0", "NaN", "Infinity", "0.1", "1e-300", "3.14159265358979311600", "1.2345678901234567"), cast: "length(%s::text)::float8 / 3"},
	{name: "float4", key: true, literal: from("0", "-0", "NaN", "0.1", "16777217")},
	{name: "text", key: true, literal: text, cast: "%s::text"},
	{name: "varchar(30)", key: true, literal: from("a", "ab ", "zoë", ""), cast: "left(%s::text, 30)"},
	{name: "char(8)", key: true, literal: from("a", "ab ", "zoë", ""), cast: "left(%s::text, 8)"},
	{name: `text COLLATE "C"`, key: true, literal: text},
	{name: `text COLLATE walk.ci`, key: true, literal: text},
	{name: "name", key: true, literal: from("a", "B c", "")},
	{name: `"char"`, key: true, literal: from("a", "", `\`)},
	{name: "bytea", key: true, literal: func(w *Walk) string {
		return one(w, []string{"decode('00ff5c27', 'hex')", "''::bytea", "sha256('a')", "decode(repeat('ab', 5000), 'hex')"})
	}, cast: "convert_to(%s::text, 'UTF8')"},
	{name: "bool", key: true, literal: from("t", "f"), cast: "length(%s::text) > 3"},
	{name: "date", key: true, literal: from("2024-03-05", "0044-03-15 BC", "infinity", "1/2/2024")},
	{name: "timestamp", key: true, literal: from(moments...)},
	{name: "timestamptz", key: true, literal: from(moments...)},
	{name: "timestamptz(0)", key: true, literal: from(moments...)},
	{name: "time", key: true, literal: from("00:00", "24:00", "12:34:56.789")},
	{name: "timetz", key: true, literal: from("00:00+14", "12:34:56.789-03:30")},
	{name: "interval", key: true, literal: from(spans...)},
	{name: "money", key: true, literal: func(w *Walk) string { return number(w) + "::money" }},
	{name: "uuid", key: true, literal: from("00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), cast: "md5(%s::text)::uuid"},
	{name: "json", literal: from(`{"a": 1,  "a": "x"}`, "null", `[1.0, 1e2]`)},
	{name: "jsonb", key: true, literal: from(`{"a": 1, "b": ["x", null]}`, "null", `1.10`, `"é"`), cast: "to_jsonb(%s)"},
	{name: "xml", literal: from("<a>b</a>", "text")},
	{name: "inet", key: true, literal: from("10.0.0.1/8", "::1", "192.168.1.7")},
	{name: "cidr", key: true, literal: from("10.0.0.0/8", "::/0")},
	{name: "macaddr", key: true, literal: from("08:00:2b:01:02:03")},
	{name: "bit(5)", key: true, literal: from("10101", "00000")},
	{name: "varbit", key: true, literal: from("", "1", "0101")},
	{name: "point", literal: from("(1,2)", "(NaN,Infinity)", "(0.1,-0)")},
	{name: "box", literal: from("(1,2),(0,0)")},
	{name: "path", literal: from("[(1,2),(0,0)]", "((0.1,0.2))")},
	{name: "int4range", key: true, literal: from("empty", "[1,5)", "(,3]", "[7,7]")},
	{name: "numrange", key: true, literal: from("empty", "[1.0,1.50)", "(,)")},
	{name: "tstzrange", key: true, literal: from("empty", `["2024-03-05 06:07:08","infinity")`, `(,"1999-12-31 23:59:59.9"]`)},
	{name: "int4multirange", since: 14, key: true, literal: from("{}", "{[1,3),[7,9)}")},
	{name: "tsvector", key: true, literal: func(w *Walk) string { return "to_tsvector(" + text(w) + " || ' the running dogs')" }},
	{name: "tsquery", key: true, literal: from("a & !b", "'it''s' <-> c:*")},
	{name: "pg_lsn", key: true, literal: from("0/0", "16/B374D848")},
	{name: "regtype", key: true, literal: from("int", "text", "walk.mood", "walk.pair")},
	{name: "regclass", key: true, literal: from("pg_class", "walk.seen")},
	{name: "text[]", key: true, literal: arrayOf(text, "text")},
	{name: "int[]", key: true, literal: arrayOf(number, "int")},
	{name: "float8[]", key: true, literal: arrayOf(from("0.1", "-0", "NaN"), "float8")},
	{name: "timestamptz[]", key: true, literal: arrayOf(from(moments...), "timestamptz")},
	{name: "interval[]", key: true, literal: arrayOf(from(spans...), "interval")},
	{name: "bytea[]", key: true, literal: from(`{"\\x00ff"}`, "{}")},
	{name: "numeric[]", key: true, literal: from("{{1.0,2},{3,4}}", "[0:1]={1,2}")},
	{name: "walk.mood", key: true, literal: func(w *Walk) string { return sqlname.Literal(one(w, w.enums)) }},
	{name: "walk.mood[]", key: true, literal: from("{sad,ok}", "{}", `{"it's fine",NULL}`)},
	{name: "walk.positive", key: true, literal: from("1", "7", "1000")},
	{name: "walk.word", key: true, literal: from("a", "Zoë", "ß")},
	{name: "walk.pair", key: true, literal: from(`(1,a)`, `(,)`, `(-7,"b, ""c"" \\")`)},
	{name: "walk.pair[]", key: true, literal: from(`{"(1,a)","(2,)"}`, "{}")},
	{name: "walk.nest", key: true, literal: from(`("(1,a)",2024-03-05 06:07:08+00,{0.1},sad)`, `(,infinity,,)`)},
	{name: "walk.pairs", literal: from(`{"(1,a)"}`)},
	{name: "walk.floats", key: true, literal: from("[0.1,2)", "empty", "(,NaN]")},
	{name: "walk.moods", key: true, literal: from("[sad,ok]", "empty")},
}

// setup are the objects that a walk stands on. Functions and domains name others without a
// schema; the path of the database finds them.
var setup = []string{
	`CREATE SCHEMA walk AUTHORIZATION shop; CREATE SCHEMA "Walk 2"; GRANT ALL ON SCHEMA walk, "Walk 2", public TO shop, clerk, "Night crew"; GRANT TEMP, CREATE ON DATABASE ` + Database + ` TO PUBLIC`,
	`SET search_path = walk, public; SET ROLE shop;
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s fine');
CREATE TYPE pair AS (n int, t text);
CREATE FUNCTION least_allowed() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
CREATE FUNCTION allowed(n int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN n > least_allowed(); END';
CREATE DOMAIN positive AS int CHECK (allowed(VALUE));
CREATE DOMAIN word AS text COLLATE "C" CHECK (VALUE !~ ' ');
CREATE DOMAIN pairs AS pair[];
CREATE TYPE nest AS (p pair, at timestamptz, f float8[], m mood);
CREATE TYPE floats AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE moods AS RANGE (subtype = mood);
CREATE FUNCTION suffix() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''!''::text';
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN upper(t) || suffix(); END';
CREATE FUNCTION pair_text(p pair) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT shout(p.t)';
CREATE FUNCTION text_pair(t text) RETURNS pair LANGUAGE sql IMMUTABLE AS 'SELECT ROW(length(t), ''cast '' || t)::pair';
CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair);
CREATE CAST (text AS pair) WITH FUNCTION text_pair(text) AS ASSIGNMENT;
CREATE TABLE seen (id bigint, n bigint);
GRANT ALL ON seen TO PUBLIC;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO walk.seen VALUES (COALESCE(NEW.id, OLD.id)::bigint, 1); RETURN NULL; END';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := NEW.id; RETURN NEW; END';
CREATE FUNCTION stable_text(t anyelement) RETURNS text LANGUAGE sql STABLE AS 'SELECT t::text || current_setting(''DateStyle'')';
CREATE SEQUENCE numbers; GRANT ALL ON numbers TO PUBLIC`,
}

// Setup returns what comes before the first step: settings of the database and of roles
// in it, and the objects that steps use.
func (w *Walk) Setup() []Action {
	settings := []string{"ALTER DATABASE " + Database + ` SET search_path = walk, public`}
	for _, s := range w.drawSettings(3) {
		settings = append(settings, "ALTER DATABASE "+Database+" SET "+s)
	}
	for _, role := range Roles {
		for _, s := range w.drawSettings(4) {
			settings = append(settings, "ALTER ROLE "+q(role)+" IN DATABASE "+Database+" SET "+s)
		}
	}
	list := []Action{{SQL: statements("settings", settings...)}}
	for _, s := range setup {
		list = append(list, Action{SQL: statements("setup", s), Whole: true})
	}
	return list
}

func statements(form string, sql ...string) []Statement {
	var list []Statement
	for _, s := range sql {
		list = append(list, Statement{SQL: s, Form: form})
	}
	return list
}

// choices are settings under which sessions read and write values otherwise.
var choices = []struct {
	name   string
	values []string
}{
	{"DateStyle", []string{"'SQL, DMY'", "'German, DMY'", "'Postgres, MDY'", "'ISO, YMD'"}},
	{"IntervalStyle", []string{"sql_standard", "iso_8601", "postgres_verbose"}},
	{"TimeZone", []string{"'Asia/Kathmandu'", "'America/St_Johns'", "'Pacific/Apia'", "'Europe/Berlin'"}},
	{"extra_float_digits", []string{"-15", "0", "3"}},
	{"bytea_output", []string{"escape"}},
	{"lc_monetary", []string{"'C'", "'C.utf8'"}},
	{"default_text_search_config", []string{"'pg_catalog.simple'", "'pg_catalog.german'"}},
	{"xmloption", []string{"document", "content"}},
	{"array_nulls", []string{"on"}},
	{"backslash_quote", []string{"off"}},
	{"row_security", []string{"on"}},
	{"default_toast_compression", []string{"pglz"}},
}

// drawSettings draws each setting with a chance of one in so many.
func (w *Walk) drawSettings(of int) []string {
	var list []string
	for _, c := range choices {
		if w.chance(of) {
			list = append(list, c.name+" = "+one(w, c.values))
		}
	}
	return list
}

// settings are those of one session.
func (w *Walk) settings() []string {
	list := []string{}
	for _, s := range w.drawSettings(12) {
		list = append(list, "SET "+s)
	}
	switch w.rng.IntN(14) {
	case 0:
		list = append(list, `SET search_path = "Walk 2", walk, public`)
	case 1:
		list = append(list, "SET search_path = ''")
	case 2:
		list = append(list, "SET standard_conforming_strings = off")
	case 3:
		list = append(list, "SET default_transaction_isolation = 'serializable'")
	case 4:
		list = append(list, "SET default_transaction_isolation = 'repeatable read'")
	case 5:
		list = append(list, "SET quote_all_identifiers = on")
	}
	return list
}
