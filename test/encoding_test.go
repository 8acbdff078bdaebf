package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Databases of other encodings cross byte for byte, copied and streamed, also where
// the bytes mean nothing to anybody.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	server, twin := p.A.Server.DSN("postgres"), p.B.Server.DSN("postgres")
	encodings := []struct{ name, hex string }{
		{"LATIN1", "e9e8fc20"},
		{"WIN1251", "cff0e8e2e5f2"},
		{"EUC_JP", "a5c6a5b9a5c8"},
		{"SQL_ASCII", "ff80c3"},
	}
	for _, e := range encodings {
		pgtest.Exec(t, server, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE template0 ENCODING '%[1]s' LOCALE 'C'`, e.name))
		text := fmt.Sprintf(`convert_from('\x%s', '%s')`, e.hex, e.name)
		if e.name == "SQL_ASCII" {
			text = `E'\xff\x80\xc3'`
		}
		a := p.A.Server.DSN(strings.ToLower(e.name)) + "&client_encoding=UTF8"
		pgtest.Exec(t, a, `CREATE TYPE mood AS ENUM ('a')`, `CREATE TABLE t (id int PRIMARY KEY, v text, m mood[])`, `CREATE TABLE keyless (v text)`,
			`INSERT INTO t SELECT i, `+text+` || i, '{a}' FROM generate_series(1, 10) i`)
		p.Create(t, strings.ToLower(e.name), strings.ToLower(e.name))
		p.WaitPhase(t, strings.ToLower(e.name), api.Replicating)
		pgtest.Exec(t, a, `UPDATE t SET v = `+text+` || E'\t\\' || v WHERE id < 5`, `INSERT INTO t VALUES (11, `+text+`, NULL)`,
			`INSERT INTO keyless VALUES (`+text+`), (`+text+`)`, `DELETE FROM keyless WHERE ctid = '(0,1)'`)
		p.WaitApplied(t, strings.ToLower(e.name), strings.ToLower(e.name))
		const bytes = `SELECT id::text, encode(convert_to(v, getdatabaseencoding()), 'hex') FROM t UNION ALL
			SELECT 'keyless', encode(convert_to(v, getdatabaseencoding()), 'hex') FROM keyless ORDER BY 1, 2`
		want, got := pgtest.Query(t, a, bytes), pgtest.Query(t, p.B.Server.DSN(strings.ToLower(e.name))+"&client_encoding=UTF8", bytes)
		if fmt.Sprint(want) != fmt.Sprint(got) || len(got) != 12 {
			t.Errorf("%s: the primary has\n%v\nthe twin\n%v", e.name, want, got)
		}
	}
	if got := pgtest.Query(t, twin, `SELECT count(DISTINCT encoding) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'`)[0][0]; got != "4" {
		t.Errorf("the twins have %s encodings", got)
	}
}
