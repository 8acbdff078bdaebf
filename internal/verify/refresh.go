package verify

import (
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// viewToFill is a materialized view that differs.
type viewToFill struct {
	name  sqlname.Table
	oid   uint32
	owner string
}

// RefreshViews fills the materialized views that differ anew, each with its owner's rights and under the
// settings of an ordinary session of the database, in the order in which they were made: one may read another.
// The session must be one of pg.Session{Apply: true, Fenced: true} that dsn leads to; link is the link's name.
func RefreshViews(ctx context.Context, conn *pgx.Conn, dsn *pg.DSN, link string, f *Findings) error {
	var list []viewToFill
	for _, t := range f.Tables {
		if !t.View {
			continue
		}
		v := viewToFill{name: t.Table}
		err := conn.QueryRow(ctx, `SELECT c.oid, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)`, t.Table.SQL()).Scan(&v.oid, &v.owner)
		if err == pgx.ErrNoRows {
			continue // gone meanwhile
		} else if err != nil {
			return pg.Classify(err, "look at materialized view "+t.Table.String())
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil
	}
	settings, err := rights.Ordinary(ctx, dsn, link)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b viewToFill) int { return cmp.Compare(a.oid, b.oid) })
	for _, v := range list {
		err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			r := rights.NewRunner(v.owner, settings)
			return rights.RunFenced(ctx, tx, r, r.RunDDL("REFRESH MATERIALIZED VIEW "+v.name.SQL()), v.name.String(), "refresh the materialized view")
		})
		if err != nil {
			return problem.As(err).On(v.name.String())
		}
	}
	return nil
}

// StaleView is the problem of a materialized view that a refresh on the secondary has not made equal,
// nil where there is none.
func (f *Findings) StaleView() error {
	for _, t := range f.Tables {
		if t.View {
			return problem.New(problem.Diverged, "view_not_repaired", "materialized view %s was refreshed on the secondary and still differs: the primary's was filled from other rows than there are now, or its query gives something else on each run", t.Table).
				On(t.Table.String()).WithHint("on the primary: REFRESH MATERIALIZED VIEW %s, which fills it on both sides at one place", t.Table.SQL())
		}
	}
	return nil
}

// Objects are the large objects that differ.
func (f *Findings) Objects() (oids []string) {
	for _, t := range f.Tables {
		if IsLargeObjects(t.Table) {
			for _, d := range t.Rows {
				oids = append(oids, d.Key[0])
			}
		}
	}
	return oids
}
