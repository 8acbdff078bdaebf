package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// uses says how an extension is used: a table of its types with two rows, what else is
// made of it, and how it is altered. An extension that is not here is created, has a table
// beside it, and is dropped.
var uses = map[string]struct {
	columns, first, second string
	more                   string
}{
	"bloom":         {`id int PRIMARY KEY, a int`, `1, 2`, `2, 3`, `CREATE INDEX ON %s USING bloom (a)`},
	"btree_gin":     {`id int PRIMARY KEY, t text`, `1, 'a'`, `2, 'b'`, `CREATE INDEX ON %s USING gin (t)`},
	"btree_gist":    {`r int, d daterange, EXCLUDE USING gist (r WITH =, d WITH &&)`, `1, '[2020-01-01,2021-01-01)'`, `2, '[2020-01-01,2021-01-01)'`, ``},
	"citext":        {`k citext PRIMARY KEY, v citext[]`, `'Ab', '{x,Y}'`, `'cD', '{}'`, ``},
	"cube":          {`k cube PRIMARY KEY`, `'(1,2)'`, `'(3,4),(5,6)'`, `CREATE INDEX ON %s USING gist (k)`},
	"dict_int":      {`id int PRIMARY KEY, v tsvector`, `1, 'a b'`, `2, 'c'`, `CREATE TEXT SEARCH DICTIONARY di (TEMPLATE = intdict_template, maxlen = 3)`},
	"earthdistance": {`id int PRIMARY KEY, e earth`, `1, ll_to_earth(1, 2)`, `2, ll_to_earth(3, 4)`, `CREATE INDEX ON %s USING gist (e)`},
	"file_fdw":      {`id int PRIMARY KEY`, `1`, `2`, `CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE ff (x text) SERVER files OPTIONS (filename '/etc/hostname')`},
	"fuzzystrmatch": {`id int PRIMARY KEY, t text, s text GENERATED ALWAYS AS (soundex(t)) STORED`, `1, 'Anne'`, `2, 'Bob'`, `CREATE INDEX ON %s (metaphone(t, 4))`},
	"hstore":        {`id int PRIMARY KEY, h hstore`, `1, 'a=>1'`, `2, 'b=>NULL'`, `CREATE INDEX ON %s USING gin (h)`},
	"intarray":      {`id int PRIMARY KEY, a int[]`, `1, '{3,1}'`, `2, '{}'`, `CREATE INDEX ON %s USING gist (a gist__int_ops)`},
	"isn":           {`k isbn PRIMARY KEY, e ean13, i issn`, `'978-0-393-04002-9', '978-0-393-04002-9', '1436-4522'`, `'0-306-40615-2', NULL, NULL`, ``},
	"lo":            {`id int PRIMARY KEY, o lo`, `1, NULL`, `2, NULL`, `CREATE TRIGGER managed BEFORE UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION lo_manage(o)`},
	"ltree":         {`k ltree PRIMARY KEY, q lquery, x ltxtquery`, `'a.b', 'a.*', 'a & b'`, `'c', '*', 'x'`, `CREATE INDEX ON %s USING gist (k)`},
	"moddatetime":   {`id int PRIMARY KEY, m timestamp`, `1, NULL`, `2, NULL`, `CREATE TRIGGER stamped BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION moddatetime(m)`},
	"pg_trgm":       {`id int PRIMARY KEY, t text`, `1, 'abc'`, `2, 'zzz'`, `CREATE INDEX ON %s USING gin (t gin_trgm_ops)`},
	"pgcrypto":      {`id uuid DEFAULT gen_random_uuid() PRIMARY KEY, h text DEFAULT crypt('x', gen_salt('md5'))`, `DEFAULT, DEFAULT`, `DEFAULT, DEFAULT`, ``},
	"seg":           {`k seg PRIMARY KEY`, `'1.0 .. 2.0'`, `'~5.00'`, ``},
	"tcn":           {`id int PRIMARY KEY`, `1`, `2`, `CREATE TRIGGER told AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION triggered_change_notification()`},
	"unaccent":      {`id int PRIMARY KEY, t text`, `1, 'é'`, `2, 'ü'`, `CREATE TEXT SEARCH CONFIGURATION un (COPY = simple); ALTER TEXT SEARCH CONFIGURATION un ALTER MAPPING FOR hword, word WITH unaccent, simple`},
	"uuid-ossp":     {`id uuid DEFAULT uuid_generate_v4() PRIMARY KEY, v int`, `DEFAULT, 1`, `DEFAULT, 2`, ``},
}

// TestExtensions creates, uses, moves and drops every extension that the server has, in a
// database before it is linked and in one that is linked; then the sides change places.
func TestExtensions(t *testing.T) {
	if os.Getenv("TWINSPAN_EXTENSIONS") == "" {
		t.Log("make extensions takes every extension that the server has")
		return
	}
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "before")
	p.A.Server.CreateDatabase(t, "linked")
	before, linked := p.A.Server.DSN("before"), p.A.Server.DSN("linked")
	var names []string
	for _, row := range pgtest.Query(t, before, `SELECT name FROM pg_available_extensions WHERE name <> 'plpgsql' ORDER BY name`) {
		names = append(names, row[0])
	}
	table := func(name string) string { return sqlname.Quote("uses " + name) }
	// What the server itself refuses, without a link, is passed over.
	refused := map[string]bool{}
	create := func(dsn, name string) error {
		u, ok := uses[name]
		if !ok {
			u.columns, u.first = `id int PRIMARY KEY`, `1`
		}
		sql := []string{fmt.Sprintf(`CREATE EXTENSION IF NOT EXISTS %s CASCADE; CREATE TABLE %s (%s); INSERT INTO %[2]s VALUES (%[4]s)`, sqlname.Quote(name), table(name), u.columns, u.first)}
		if u.more != "" {
			sql = append(sql, strings.ReplaceAll(u.more, "%s", table(name)))
		}
		for _, s := range sql {
			if _, err := pgtest.Try(t.Context(), dsn, s); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if err := create(before, name); err != nil {
			t.Logf("%s cannot be created here: %v", name, err)
			refused[name] = true
		}
	}
	for _, name := range []string{"before", "linked"} {
		if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: name, Database: name, Peer: "b", Accept: []string{"jobs_not_carried"}}); err != nil {
			t.Fatal(err)
		}
		p.WaitPhase(t, name, api.Replicating)
	}
	for _, name := range names {
		if refused[name] {
			continue
		}
		if err := create(linked, name); err != nil {
			t.Errorf("%s is refused on a linked primary: %v", name, err)
			continue
		}
		if u, ok := uses[name]; ok {
			for _, dsn := range []string{before, linked} {
				pgtest.Exec(t, dsn, fmt.Sprintf(`INSERT INTO %s VALUES (%s)`, table(name), u.second))
			}
		}
		t.Log(name)
	}
	sameStructure(t, p, "before", "before")
	sameStructure(t, p, "linked", "linked")

	pgtest.Exec(t, linked, `CREATE SCHEMA ext`)
	for _, name := range names {
		if refused[name] {
			continue
		}
		extension := sqlname.Quote(name)
		if pgtest.Query(t, linked, `SELECT extrelocatable::text FROM pg_extension WHERE extname = `+sqlname.Literal(name))[0][0] == "true" {
			pgtest.Exec(t, linked, `ALTER EXTENSION `+extension+` SET SCHEMA ext; ALTER EXTENSION `+extension+` UPDATE`)
		}
	}
	sameStructure(t, p, "linked", "linked")
	for _, name := range names {
		pgtest.Exec(t, linked, `DROP EXTENSION IF EXISTS `+sqlname.Quote(name)+` CASCADE`)
	}
	sameStructure(t, p, "linked", "linked")
	for _, name := range []string{"before", "linked"} {
		if v := verify(t, p.A.Client, name, api.Verify{}); v.State != api.Equal {
			t.Errorf("%s: %+v", name, v)
		}
		if f := failOver(t, p.A, name, api.FailoverRequest{}); f.State != api.FailoverDone {
			t.Errorf("%s: %+v", name, f)
		}
		pgtest.Equal(t, p.A.Server.DSN(name), p.B.Server.DSN(name))
	}
}
