package capture

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// insufficientPrivilege is what a server answers to a role that may not do something.
const insufficientPrivilege = "42501"

// trigger makes the event triggers, unless the role may make none: then changes of
// schema are not seen here, and the secondary compares schemas.
func (s *Source) trigger(ctx context.Context, conn *pgx.Conn) error {
	for i, t := range eventTriggers {
		err := makeEventTrigger(ctx, conn, t.name, t.event, t.function)
		if i == 0 && pg.SQLState(err) == insufficientPrivilege {
			s.Log.Warn("no event triggers allowed", "link", s.Name)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return captureSchema(ctx, conn)
}

// publish makes the publication: of all tables where the role may publish those to
// come as well, else of the tables that are there and not in it. Nobody sees it before every
// table has been tried.
func (s *Source) publish(ctx context.Context, conn *pgx.Conn) error {
	err := s.patiently(ctx, func() error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			var there bool
			err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = $1)`, s.Object()).Scan(&there)
			if err == nil && !there {
				err = pgx.BeginFunc(ctx, tx, func(part pgx.Tx) error {
					_, err := part.Exec(ctx, `CREATE PUBLICATION `+s.Object()+` FOR ALL TABLES`)
					return err
				})
				if pg.SQLState(err) == insufficientPrivilege {
					_, err = tx.Exec(ctx, `CREATE PUBLICATION `+s.Object())
				}
			}
			if err != nil {
				return pg.Classify(err, "create the publication")
			}
			if err := sendStored(ctx, tx); err != nil {
				return err
			}
			return s.prove(ctx, tx)
		})
	})
	if err != nil {
		return err
	}
	return s.PublishTables(ctx, conn)
}

// PublishTables adds the tables that a publication which is not of all tables lacks,
// and makes them updatable. It does nothing where there is nothing to add.
func (s *Source) PublishTables(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND (n.nspname <> 'twinspan' OR c.relname = 'signal')
		AND EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = $1 AND NOT p.puballtables
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)) ORDER BY 1`, s.Object())
	if err != nil {
		return pg.Classify(err, "list tables that are not published")
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) == 0 {
		return pg.Classify(err, "list tables that are not published")
	}
	if err := s.identify(ctx, conn); err != nil {
		return err
	}
	return s.patiently(ctx, func() error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `ALTER PUBLICATION `+s.Object()+` ADD TABLE `+strings.Join(tables, ", ")); err != nil {
				return pg.Classify(err, "publish tables")
			}
			return s.prove(ctx, tx)
		})
	})
}
