package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// kinds of columns: DDL that makes type k, or names another one, and an expression of 40
// different values by g.
var kinds = []struct{ name, ddl, typ, value string }{
	{"integer", "", "int", "g"},
	{"varchar", "", "varchar(20)", "'v' || g"},
	{"char", "", "char(6)", "'v' || g"},
	{"cidr", "", "cidr", "('10.0.0.' || g || '/32')::cidr"},
	{"interval", "", "interval", "g * interval '1 hour'"},
	{"array", "", "int[]", "ARRAY[g, g]"},
	{"regclass", "CREATE SCHEMA s; DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE 'CREATE TABLE s.o' || i || ' (id int PRIMARY KEY)'; END LOOP; END $$", "regclass", "('s.o' || g)::regclass"},
	{"regtype", "", "regtype", "(ARRAY(SELECT t.oid FROM pg_type t WHERE t.oid < 1200 ORDER BY t.oid))[g]::regtype"},
	{"enum", "DO $$ BEGIN EXECUTE 'CREATE TYPE k AS ENUM (' || (SELECT string_agg(quote_literal('e' || i), ', ') FROM generate_series(1, 40) i) || ')'; END $$", "k", "('e' || g)::k"},
	{"array of enum", "DO $$ BEGIN EXECUTE 'CREATE TYPE en AS ENUM (' || (SELECT string_agg(quote_literal('e' || i), ', ') FROM generate_series(1, 40) i) || ')'; END $$", "en[]", "ARRAY['e' || g]::en[]"},
	{"domain over enum", "DO $$ BEGIN EXECUTE 'CREATE TYPE en AS ENUM (' || (SELECT string_agg(quote_literal('e' || i), ', ') FROM generate_series(1, 40) i) || ')'; END $$; CREATE DOMAIN k AS en", "k", "('e' || g)::en::k"},
	{"domain over domain over enum", "DO $$ BEGIN EXECUTE 'CREATE TYPE en AS ENUM (' || (SELECT string_agg(quote_literal('e' || i), ', ') FROM generate_series(1, 40) i) || ')'; END $$; CREATE DOMAIN k0 AS en; CREATE DOMAIN k AS k0 CHECK (VALUE::text <> 'z')", "k", "('e' || g)::en::k0::k"},
	{"array of domain over enum", "CREATE TYPE en AS ENUM ('a', 'b'); CREATE DOMAIN k0 AS en", "k0[]", "array_fill('a'::k0, ARRAY[g])"},
	{"domain over array", "CREATE DOMAIN k AS int[]", "k", "ARRAY[g, g]::k"},
	{"domain over array of enum", "CREATE TYPE en AS ENUM ('a', 'b'); CREATE DOMAIN k AS en[]", "k", "array_fill('a'::en, ARRAY[g])::k"},
	{"domain over integer", "CREATE DOMAIN k AS int NOT NULL", "k", "g::k"},
	{"domain over varchar", "CREATE DOMAIN k AS varchar(20)", "k", "('v' || g)::k"},
	{"domain over range", "CREATE DOMAIN k AS int4range", "k", "int4range(g, g + 2)::k"},
	{"domain over multirange", "CREATE DOMAIN k AS int4multirange", "k", "int4multirange(int4range(g, g + 2))::k"},
	{"range of a user", "CREATE TYPE k AS RANGE (subtype = float8)", "k", "k(g, g + 0.5)"},
	{"composite", "CREATE TYPE k AS (x int, y text)", "k", "ROW(g, 'y')::k"},
	{"domain over composite", "CREATE TYPE c AS (x int, y text); CREATE DOMAIN k AS c", "k", "ROW(g, 'y')::c::k"},
	{"composite with domain", "CREATE TYPE en AS ENUM ('a', 'b'); CREATE DOMAIN d AS en; CREATE TYPE k AS (x int, y d)", "k", "ROW(g, 'a')::k"},
	{"base type coercible to text", `CREATE TYPE own; CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal IMMUTABLE STRICT AS 'textin';
		CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
		CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = text, COLLATABLE = true); CREATE CAST (own AS text) WITHOUT FUNCTION AS IMPLICIT`, "own", "own_in(('o' || g)::cstring)"},
}

// A key's operator is that of its index, found by coercion as the server finds it.
func TestKeysOfEveryKind(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			value := k.value
			var ddl []string
			if k.ddl != "" {
				ddl = append(ddl, k.ddl)
			}
			p := newPair(t, true, append(ddl,
				fmt.Sprintf("CREATE TABLE key (k %s PRIMARY KEY, v int)", k.typ),
				fmt.Sprintf("CREATE TABLE two (k %s, d date, v int, PRIMARY KEY (d, k))", k.typ),
				fmt.Sprintf("CREATE TABLE none (k %s, v int); ALTER TABLE none REPLICA IDENTITY FULL", k.typ))...)
			p.do(
				"INSERT INTO key SELECT "+value+", g FROM generate_series(1, 40) g",
				"INSERT INTO two SELECT "+value+", date '2026-01-01' + g % 3, g FROM generate_series(1, 40) g",
				"INSERT INTO none SELECT "+value+", g FROM generate_series(1, 40) g",
			)
			p.apply()
			for _, table := range []string{"key", "two", "none"} {
				p.do("UPDATE "+table+" SET v = -1 WHERE v = 1", "DELETE FROM "+table+" WHERE v = 2", "UPDATE "+table+" SET v = v + 100 WHERE v % 2 = 1", "DELETE FROM "+table+" WHERE v % 4 = 0",
					"UPDATE "+table+" SET k = (SELECT k FROM "+table+" WHERE v = 10) WHERE v = 6 AND '"+table+"' = 'none'")
				p.apply()
			}
			p.do("DELETE FROM key WHERE v = 10", "UPDATE key SET k = (SELECT k FROM none WHERE v = 10 LIMIT 1) WHERE v = 6")
			a := p.apply()
			p.same()
			if f := a.Status().Fallbacks; f != 0 {
				t.Errorf("%d fallbacks", f)
			}
		})
	}
}

// What is a key is for the secondary's catalogs to say.
func TestKeysThatAreNone(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text,
			"CREATE TABLE generated (a int, b int, v text, g int GENERATED ALWAYS AS (b * 2) STORED, PRIMARY KEY (a, g)); ALTER TABLE generated REPLICA IDENTITY FULL",
			"CREATE TABLE later (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); ALTER TABLE later REPLICA IDENTITY FULL",
			`CREATE TABLE class (k text NOT NULL, v int); CREATE UNIQUE INDEX class_k ON class (k text_pattern_ops); ALTER TABLE class REPLICA IDENTITY USING INDEX class_k`,
			`CREATE TABLE "Included" (k int NOT NULL, v int, "x y" text); CREATE UNIQUE INDEX inc ON "Included" (k) INCLUDE ("x y"); ALTER TABLE "Included" REPLICA IDENTITY USING INDEX inc`,
			`CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
			 CREATE TABLE collated (k text COLLATE nd NOT NULL, v int); CREATE UNIQUE INDEX collated_k ON collated (k COLLATE "C"); ALTER TABLE collated REPLICA IDENTITY USING INDEX collated_k`,
		)
		p.do("BEGIN; INSERT INTO generated (a, b, v) VALUES (1, 1, 'x'), (1, 2, 'y'); DELETE FROM generated WHERE b = 1; COMMIT",
			"INSERT INTO generated (a, b, v) SELECT 7, i, 'x' FROM generate_series(1, 30) i", "INSERT INTO later SELECT i, 'v' FROM generate_series(1, 30) i",
			"INSERT INTO class SELECT 'k' || i, i FROM generate_series(1, 30) i", `INSERT INTO "Included" SELECT i, i, 'x' FROM generate_series(1, 30) i`,
			"INSERT INTO collated VALUES ('a', 1), ('A', 2), ('á', 3), ('b', 4), ('B', 5)")
		p.apply()
		p.do("UPDATE generated SET v = 'one' WHERE b = 1", "UPDATE generated SET v = 'many' WHERE b > 5", "UPDATE generated SET b = b + 1000 WHERE b % 2 = 0", "DELETE FROM generated WHERE b % 3 = 0",
			"BEGIN; UPDATE later SET id = 31 - id; COMMIT", "DELETE FROM later WHERE id % 3 = 0", "UPDATE class SET v = v + 1 WHERE v > 3", "DELETE FROM class WHERE v = 2",
			`UPDATE "Included" SET v = v + 1`, `DELETE FROM "Included" WHERE k < 15`, "UPDATE collated SET v = v + 10 WHERE v = 2", "UPDATE collated SET v = v + 10", "DELETE FROM collated WHERE v = 11")
		a := p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
	})
}

// A server of version 18 sends stored generated columns where a publication asks for them:
// they are part of keys and of whole rows, and are never written.
func TestGeneratedColumnsThatAreSent(t *testing.T) {
	newer := pgtest.Start(t, pgtest.WithMajor(18))
	both(t, func(t *testing.T, text bool) {
		schema := []string{
			"CREATE TABLE in_key (a int, b int, v text, g int GENERATED ALWAYS AS (b * 2) STORED, PRIMARY KEY (a, g))",
			"CREATE TABLE whole_key (b int, v text, g bigint GENERATED ALWAYS AS (b * 3::bigint) STORED PRIMARY KEY)",
			"CREATE TABLE keyless (b int, v text, g float GENERATED ALWAYS AS (b / 3.0) STORED); ALTER TABLE keyless REPLICA IDENTITY FULL",
		}
		p := newPair(t, text, schema...)
		p.plain = newer.DSN(newer.Database(t))
		p.source = p.plain + "&client_encoding=UTF8"
		p.do(append(schema, "CREATE PUBLICATION p FOR ALL TABLES WITH (publish_generated_columns = stored)", "SELECT pg_create_logical_replication_slot('"+p.slot+"', 'pgoutput')")...)
		p.do("BEGIN; INSERT INTO in_key (a, b, v) VALUES (1, 1, 'x'), (1, 2, 'y'); DELETE FROM in_key WHERE b = 1; COMMIT")
		for _, table := range []string{"in_key (a, b, v) SELECT 7, i, 'x'", "whole_key (b, v) SELECT i, 'x'", "keyless (b, v) SELECT i / 2, 'x'"} {
			p.do("INSERT INTO " + table + " FROM generate_series(10, 60) i")
		}
		p.apply()
		for _, table := range []string{"in_key", "whole_key", "keyless"} {
			p.do("UPDATE "+table+" SET v = 'one' WHERE b = 11", "UPDATE "+table+" SET v = 'many' WHERE b > 15", "UPDATE "+table+" SET b = b + 1000 WHERE b % 2 = 0", "DELETE FROM "+table+" WHERE b = 1016", "DELETE FROM "+table+" WHERE b % 3 = 0",
				"BEGIN; UPDATE "+table+" SET b = -b; DELETE FROM "+table+" WHERE b < -1030; COMMIT")
			p.apply()
		}
		p.same()
	})
}

// A value is read by its type's input function, whatever casts there are, in every form
// in which it is written.
func TestCastsOfUsersReadNothing(t *testing.T) {
	for _, source := range []string{"text", "varchar", "text, varchar", "text[]", "bpchar"} {
		t.Run(source, func(t *testing.T) {
			ddl := []string{`CREATE TYPE c AS (a int, b text); CREATE TYPE en AS ENUM ('a', 'b', 'c'); CREATE DOMAIN dom AS en; CREATE DOMAIN domc AS c`}
			for i, from := range strings.Split(source, ", ") {
				to, toEnum := "c", "en"
				if strings.HasSuffix(from, "[]") {
					to, toEnum = "c[]", "en[]"
				}
				ddl = append(ddl, fmt.Sprintf(`CREATE FUNCTION tc%[1]d(%[2]s) RETURNS %[3]s LANGUAGE sql IMMUTABLE AS $$ SELECT (CASE WHEN '%[3]s' = 'c' THEN '(99,cast)' ELSE '{"(99,cast)"}' END)::cstring::text::%[3]s $$`, i, from, to),
					fmt.Sprintf(`CREATE FUNCTION te%[1]d(%[2]s) RETURNS %[3]s LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r %[3]s := CASE WHEN '%[3]s' = 'en' THEN 'c' ELSE '{c}' END; BEGIN RETURN r; END $$`, i, from, toEnum),
					fmt.Sprintf("CREATE CAST (%s AS %s) WITH FUNCTION tc%d(%s)", from, to, i, from), fmt.Sprintf("CREATE CAST (%s AS %s) WITH FUNCTION te%d(%s)", from, toEnum, i, from),
					fmt.Sprintf("CREATE FUNCTION oe%d(en) RETURNS %s LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::%s $$", i, from, from), fmt.Sprintf("CREATE CAST (en AS %s) WITH FUNCTION oe%d(en)", from, i))
			}
			p := newPair(t, true, append(ddl, `CREATE TABLE t (id int PRIMARY KEY, v c, w en, x c[], y en[], z dom, q domc)`,
				`CREATE TABLE ke (k en, id int, v c, PRIMARY KEY (k, id))`, `CREATE TABLE kc (k c PRIMARY KEY, id int)`, `CREATE TABLE one (k en PRIMARY KEY, id int)`,
				`CREATE TABLE n (k en, v c, z dom, j json, id int); ALTER TABLE n REPLICA IDENTITY FULL`)...)
			p.do(`INSERT INTO t SELECT g, ROW(g, 'v')::c, 'a', ARRAY[ROW(g, 'x')::c], '{a,b}', 'b', ROW(g, 'q')::c FROM generate_series(1, 40) g`,
				`INSERT INTO ke SELECT 'a', g, ROW(g, 'v')::c FROM generate_series(1, 40) g`, `INSERT INTO kc SELECT ROW(g, 'v')::c, g FROM generate_series(1, 40) g`, `INSERT INTO one VALUES ('a', 1), ('b', 2)`,
				`INSERT INTO n SELECT 'a', ROW(g, 'v')::c, 'b', '{}', g FROM generate_series(1, 40) g`)
			p.apply()
			p.same()
			p.do(`UPDATE t SET v = ROW(id + 1, 'w'), w = 'b', x = x || ROW(0, 'y')::c, y = '{b}', z = 'a', q = ROW(id, 'r')::c`, `UPDATE ke SET v = ROW(id, 'w')`, `UPDATE ke SET k = 'b' WHERE id % 2 = 0`, `DELETE FROM ke WHERE id % 3 = 0`,
				`UPDATE kc SET id = id + 1`, `DELETE FROM kc WHERE id % 2 = 0`, `UPDATE n SET k = 'b', v = ROW(0, 'n')::c WHERE id % 2 = 0`, `DELETE FROM n WHERE id % 3 = 0`, `DELETE FROM n WHERE id = 1`,
				`UPDATE one SET id = 3 WHERE k = 'a'`, `DELETE FROM one WHERE k = 'b'`)
			a := p.apply()
			p.same()
			if f := a.Status().Fallbacks; f != 0 {
				t.Errorf("%d fallbacks", f)
			}
		})
	}
}

// An infinite interval, which came with version 17, is refused by an older server, and
// never another interval there.
func TestValuesThatOnlyTheNewerServerKnows(t *testing.T) {
	newer := pgtest.Start(t, pgtest.WithMajor(17))
	schema := "CREATE TABLE t (id int PRIMARY KEY, i interval, list interval[], v text)"
	p := newPair(t, false, schema)
	p.plain = newer.DSN(newer.Database(t))
	p.source = p.plain + "&client_encoding=UTF8"
	p.do(schema, "CREATE PUBLICATION p FOR ALL TABLES", "SELECT pg_create_logical_replication_slot('"+p.slot+"', 'pgoutput')",
		"INSERT INTO t SELECT g, g * interval '1 day -2 hours', ARRAY[interval '-1 mon'], 'v' FROM generate_series(1, 40) g")
	from17 := func(a *Applier) { a.SourceMajor = 17 }
	if _, err := p.try(from17); code(err) != "stream_needs_text" {
		t.Fatalf("in binary form: %v", err)
	}
	p.text = true
	if _, err := p.try(from17); err != nil {
		t.Fatal(err)
	}
	p.same()
	for _, change := range []string{"UPDATE t SET i = 'infinity' WHERE id = 3", "UPDATE t SET list = '{-infinity}'"} {
		p.do(change)
		_, err := p.try(from17)
		if e := problem.As(err); code(err) != "value_too_new" || e.Subject != "public.t (id) = (3)" || !strings.Contains(e.Error(), "column i has one") {
			t.Errorf("%s: %v", change, err)
		}
	}
}
