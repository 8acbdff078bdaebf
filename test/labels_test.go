package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// labels lists a database's own security labels.
func labels(t *testing.T, dsn string) []string {
	t.Helper()
	var list []string
	for _, row := range pgtest.Query(t, dsn, `SELECT provider, objtype, objname, label FROM pg_seclabels WHERE objtype NOT IN ('database', 'large object', 'publication', 'event trigger') ORDER BY 2, 3`) {
		list = append(list, strings.Join(row, " "))
	}
	return list
}

// Security labels come with the copy and with the stream, of every kind of object
// that has them.
func TestSecurityLabelsCross(t *testing.T) {
	t.Parallel()
	if !pgtest.CanLabel() {
		return // no server takes a label here
	}
	p := linktest.New(t, linktest.Options{Before: func(_ string, s *pgtest.Server) { s.LoadLabelProvider(t) }})
	p.A.Server.CreateDatabase(t, "labels")
	a, b := p.A.Server.DSN("labels"), p.B.Server.DSN("labels")
	pgtest.Exec(t, a, `CREATE TABLE copied (id int PRIMARY KEY, secret text)`, `SECURITY LABEL FOR label ON TABLE copied IS 'it''s; copied'`,
		`SECURITY LABEL ON COLUMN copied.secret IS 'hidden'`, `CREATE SCHEMA copied_too`, `SECURITY LABEL ON SCHEMA copied_too IS 's'`)
	p.Create(t, "labels", "labels")
	p.WaitPhase(t, "labels", api.Replicating)
	if got := labels(t, b); len(got) != 3 || !slices.Equal(got, labels(t, a)) {
		t.Fatalf("the copy has the labels %q", got)
	}
	err := run(t, a, `SECURITY LABEL ON TABLE copied IS NULL; SECURITY LABEL ON TABLE copied IS E'twice\n'; SECURITY LABEL FOR "label" ON COLUMN copied.secret IS NULL`,
		`CREATE SCHEMA s; SECURITY LABEL ON SCHEMA s IS 's'`, `SET search_path = s; CREATE TABLE t (id int PRIMARY KEY); SECURITY LABEL ON TABLE t IS 't'; INSERT INTO t VALUES (1); RESET search_path`,
		`CREATE VIEW s.v AS SELECT 1 AS x; SECURITY LABEL ON VIEW s.v IS 'v'`, `CREATE MATERIALIZED VIEW s.m AS SELECT 1 AS x; SECURITY LABEL ON MATERIALIZED VIEW s.m IS 'm'`,
		`CREATE SEQUENCE s.q; SECURITY LABEL ON SEQUENCE s.q IS 'q'`, `CREATE TYPE s.e AS ENUM ('a'); SECURITY LABEL ON TYPE s.e IS 'e'`, `CREATE DOMAIN s.d AS int; SECURITY LABEL ON DOMAIN s.d IS 'd'`,
		`CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; SECURITY LABEL ON FUNCTION s.f(int) IS 'f'`, `CREATE PROCEDURE s.p() LANGUAGE sql AS 'SELECT 1'; SECURITY LABEL ON PROCEDURE s.p() IS 'p'`,
		`CREATE AGGREGATE s.g(int) (sfunc = int4pl, stype = int); SECURITY LABEL ON AGGREGATE s.g(int) IS 'g'`, `SECURITY LABEL ON ROUTINE s.f IS 'routine'`,
		`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER w FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE s.ft (a int) SERVER w; SECURITY LABEL ON FOREIGN TABLE s.ft IS 'ft'`,
		`DO $$ BEGIN EXECUTE format('SECURITY LABEL ON COLUMN s.t.id IS %L', 'in a block'); END $$`, `SECURITY LABEL ON LANGUAGE plpgsql IS 'l'`,
		// These belong to each server, or come otherwise.
		`SECURITY LABEL ON DATABASE labels IS 'not carried'; CREATE PUBLICATION mine; SECURITY LABEL ON PUBLICATION mine IS 'not carried'; DROP PUBLICATION mine`,
		`BEGIN; SECURITY LABEL ON SCHEMA s IS 'rolled back'; ROLLBACK`, `CREATE TEMP TABLE tmp (a int); SECURITY LABEL ON TABLE tmp IS 'temporary'`)
	if err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "labels", "labels")
	if inA, inB := labels(t, a), labels(t, b); len(inA) != 15 || !slices.Equal(inA, inB) {
		t.Fatalf("the primary has %d labels %q\nthe twin has %q", len(inA), inA, inB)
	}
	if v := verify(t, p.A.Client, "labels", api.Verify{}); v.State != api.Equal {
		t.Errorf("verify says %s: %+v", v.State, v)
	}
}

// A twin whose server does not have the provider stops the link, and goes on when it has.
func TestSecurityLabelOfAMissingProvider(t *testing.T) {
	t.Parallel()
	if !pgtest.CanLabel() {
		return // no server takes a label here
	}
	p := linktest.New(t, linktest.Options{Before: func(name string, s *pgtest.Server) {
		if name == "a" {
			s.LoadLabelProvider(t)
		}
	}})
	p.A.Server.CreateDatabase(t, "labels")
	p.A.Server.CreateDatabase(t, "labelled")
	a := p.A.Server.DSN("labels")
	pgtest.Exec(t, p.A.Server.DSN("labelled"), `SECURITY LABEL ON SCHEMA public IS 'x'`)
	has(t, check(t, p, api.CheckRequest{Database: "labelled", Peer: "b"}), "blocks label_provider_missing label")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "labels", "labels")
	p.WaitPhase(t, "labels", api.Replicating)
	pgtest.Exec(t, a, `BEGIN; INSERT INTO t VALUES (1); SECURITY LABEL ON TABLE t IS 'x'; COMMIT`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(context.Background(), "labels")
		if err != nil || l.Phase != api.Broken || len(l.Problems) == 0 || l.Problems[0].Code != "schema_change_failed" || l.Problems[0].Subject != "public.t" {
			return fmt.Errorf("the link is %s: %+v, %v", l.Phase, l.Problems, err)
		}
		return nil
	})
	p.B.Server.LoadLabelProvider(t)
	resume(t, p, "labels")
	sameStructure(t, p, "labels", "labels")
	if got := labels(t, p.B.Server.DSN("labels")); len(got) != 1 {
		t.Errorf("the twin has the labels %q", got)
	}
	for _, f := range check(t, p, api.CheckRequest{Database: "labelled", Peer: "b"}) {
		if strings.Contains(f, "label_provider_missing") {
			t.Error(f)
		}
	}
}
