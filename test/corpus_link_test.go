package test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// TestCorporaCross runs all histories at the same time, each on a database of one
// primary, linked and under load.
func TestCorporaCross(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	for _, c := range corpora(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, side := range []*linktest.Side{p.A, p.B} {
				if err := psql(t, side.Server.DSN("postgres"), filepath.Join(c.dir, "roles.sql")); err != nil {
					t.Fatal(err)
				}
			}
			p.A.Server.CreateDatabase(t, c.name)
			a, b := p.A.Server.DSN(c.name), p.B.Server.DSN(c.name)
			if err := psql(t, a, filepath.Join(c.dir, "schema.sql")); err != nil {
				t.Fatal(err)
			}
			l := startBustle(t, c, a, 3)
			p.Create(t, c.name, c.name)
			p.WaitPhase(t, c.name, api.Replicating)
			for _, m := range c.migrations {
				if err := l.migrate(t, m); err != nil {
					t.Fatal(err)
				}
			}
			l.end(t)
			refuse(t, a, c)
			refreshViews(t, a)
			p.WaitEqual(t, c.name, c.name)
			if d := diffDumps(readDump(t, p.A.Server, c.name), readDump(t, p.B.Server, c.name)) + diffBesides(t, a, b); d != "" {
				t.Errorf("the primary and the twin differ\n%s", d)
			}
			pgtest.Eventually(t, linktest.Patience, func() error { // sequences do not come with the stream, but with the next look
				if d := diffSequences(t, a, b); d != "" {
					return errors.New(d)
				}
				return nil
			})
			p.WaitPhase(t, c.name, api.Replicating) // which verify asks for
			v := verify(t, p.A.Client, c.name, api.Verify{})
			v.Skipped = slices.DeleteFunc(v.Skipped, func(s api.SkippedTable) bool {
				return pgtest.Query(t, a, `SELECT relpersistence FROM pg_class WHERE oid = $1::regclass`, s.Table)[0][0] == "u"
			})
			if v.State != api.Equal || len(v.Skipped) > 0 {
				t.Errorf("verify says %s: %q, skipped %+v, problem %+v", v.State, told(v), v.Skipped, v.Problem)
			}
		})
	}
}

// refuse sends what a linked primary refuses.
func refuse(t *testing.T, dsn string, c corpus) {
	t.Helper()
	for _, p := range c.refused {
		conn := pgtest.Conn(t, dsn)
		_, err := conn.PgConn().Exec(t.Context(), p.sql).ReadAll()
		var e *pgconn.PgError
		if !errors.As(err, &e) || !strings.Contains(e.Detail, p.name) || e.Hint == "" {
			t.Errorf("%s: the error is %#v", p.name, err)
		}
	}
}

// refreshViews fills all materialized views while nothing writes. A twin fills its
// own with what it holds at that place of the stream; the primary's leave out
// what was committed while they were being filled.
func refreshViews(t *testing.T, dsn string) {
	t.Helper()
	for _, row := range pgtest.Query(t, dsn, `SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'm' AND c.relispopulated`) {
		pgtest.Exec(t, dsn, `REFRESH MATERIALIZED VIEW `+row[0])
	}
}
