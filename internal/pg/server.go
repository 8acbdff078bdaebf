package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Server is what an instance says of itself.
type Server struct {
	Version  string // as server_version prints it
	Number   int    // server_version_num: 150020
	SystemID string // of the cluster; every member of an HA cluster has the same
}

// Database is a database of an instance that accepts connections.
type Database struct {
	Name  string
	Owner string
	Bytes int64 // 0 where it was not asked for
}

// Describe asks the instance what it is, and which databases it has. Sizes cost
// a look at every file, so they are measured only when asked for.
func (d *DSN) Describe(ctx context.Context, sizes bool) (Server, []Database, error) {
	conn, err := d.Connect(ctx, Session{Name: "describe"})
	if err != nil {
		return Server{}, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	s, err := identify(ctx, conn)
	if err != nil {
		return s, nil, err
	}
	rows, err := conn.Query(ctx, `SELECT datname, pg_get_userbyid(datdba), CASE WHEN $1 THEN pg_database_size(oid) ELSE 0 END
		FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname`, sizes)
	if err != nil {
		return s, nil, Classify(err, "list the databases")
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Database])
	return s, list, Classify(err, "list the databases")
}

// Identify asks the instance what it is.
func (d *DSN) Identify(ctx context.Context) (Server, error) {
	conn, err := d.Connect(ctx, Session{Name: "describe"})
	if err != nil {
		return Server{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return identify(ctx, conn)
}

func identify(ctx context.Context, conn *pgx.Conn) (s Server, err error) {
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int, (SELECT system_identifier::text FROM pg_control_system())`).
		Scan(&s.Version, &s.Number, &s.SystemID)
	return s, Classify(err, "ask the server for its version")
}
