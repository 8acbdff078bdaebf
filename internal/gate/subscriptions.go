package gate

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Subscribed lists the enabled subscriptions of the database: what they apply fires no
// trigger of statements (execReplication.c), so that no gate refuses or holds it. conn is
// a superuser's.
func Subscribed(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT subname FROM pg_catalog.pg_subscription
		WHERE subenabled AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1`)
	if err != nil {
		return nil, pg.Classify(err, "list the subscriptions of the database")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, pg.Classify(err, "list the subscriptions of the database")
}

// Unsubscribe disables the subscriptions of the database, ends their processes, and
// returns which they were.
func Unsubscribe(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	names, err := Subscribed(ctx, conn)
	for i := 0; i < len(names) && err == nil; i++ {
		if _, err = conn.Exec(ctx, `ALTER SUBSCRIPTION `+sqlname.Quote(names[i])+` DISABLE`); err != nil {
			err = pg.Classify(err, "disable the subscription "+names[i])
		}
	}
	if err == nil && len(names) > 0 {
		_, err = conn.Exec(ctx, `SELECT pg_catalog.pg_terminate_backend(s.pid) FROM pg_catalog.pg_stat_subscription s
			JOIN pg_catalog.pg_subscription d ON d.oid = s.subid AND NOT d.subenabled WHERE s.pid IS NOT NULL
			AND d.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())`)
		err = pg.Classify(err, "end the subscriptions' processes")
	}
	return names, err
}
