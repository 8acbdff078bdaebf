package capture

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// listed is a table in a list.
type listed struct {
	OID  uint32
	Name string // quoted
}

func tablesOf(ctx context.Context, q pg.Rows, what, sql string) ([]listed, error) {
	rows, err := q.Query(ctx, sql)
	if err != nil {
		return nil, pg.Classify(err, what)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[listed])
	return list, pg.Classify(err, what)
}

// identify gives those tables an identity that have none by the catalogs: one that is published
// before refuses the application's changes.
func (s *Source) identify(ctx context.Context, conn *pgx.Conn) error {
	tables, err := tablesOf(ctx, conn, "list tables without a replica identity", `SELECT oid, name FROM twinspan.without_identity(NULL)`)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := s.patiently(ctx, func() error { return s.keepIdentity(ctx, conn, t) }); err != nil {
			return problem.As(err).On(t.Name)
		}
	}
	return nil
}

func (s *Source) keepIdentity(ctx context.Context, on pg.Beginner, t listed) error {
	err := pg.InTx(ctx, on, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT twinspan.keep_identity($1, false)`, t.OID)
		return pg.Classify(err, "set the replica identity of "+t.Name)
	})
	if err := unlessGone(err, "set the replica identity of "+t.Name); err != nil {
		return err
	}
	s.Log.Info("replica identity looked after", "link", s.Name, "table", t.Name)
	return nil
}

// prove tries UPDATE and DELETE of every table, as the server decides on them now that the
// transaction has published them, and gives those another identity that it refuses.
func (s *Source) prove(ctx context.Context, tx pgx.Tx) error {
	tables, err := tablesOf(ctx, tx, "try tables for UPDATE and DELETE", `SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND twinspan.refusal(c.oid) IS NOT NULL`)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := s.keepIdentity(ctx, tx, t); err != nil {
			return err
		}
	}
	return nil
}

// sendStored has our publications of a server from version 18 on send stored generated
// columns: without them no such column can be in a replica identity, FULL included.
func sendStored(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT pubname::text FROM pg_catalog.pg_publication p WHERE pubname LIKE 'twinspan\_%' AND pg_catalog.to_jsonb(p)->>'pubgencols' = 'n'`)
	if err != nil {
		return pg.Classify(err, "look at publications")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "look at publications")
	}
	for _, name := range names {
		if _, err := tx.Exec(ctx, `ALTER PUBLICATION `+sqlname.Quote(name)+` SET (publish_generated_columns = stored)`); err != nil {
			return pg.Classify(err, "publish stored generated columns")
		}
	}
	return nil
}
