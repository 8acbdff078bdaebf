package restore

import (
	"context"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// spare is what a test leaves free on the disk, at least: nobody has asked for it at this moment, and
// the instance goes on writing beside it.
const spare = 4 << 30

// Prove restores all of a set, recovers it to the end of the log, and reads every row of every database: what is read there can be restored.
// Nothing of the databases' own code is run, for it would run as a superuser: nothing of theirs is
// planned, and no index is looked into, as an operator class may be a user's.
func (r *Restore) Prove(ctx context.Context, set backup.Set) (p backup.Proof, err error) {
	p.Set = set.Label
	r.Spare = max(set.Bytes/10, spare)
	err = r.Run(ctx, Target{Set: set}, func(ctx context.Context, s State) error {
		p.Until, p.Position = s.Last, s.Position
		if p.Until.Before(set.Stop) { // nothing was committed behind it
			p.Until = set.Stop
		}
		names, err := r.databases(ctx)
		for _, name := range names {
			if err != nil {
				return err
			}
			r.step("reading the database " + name)
			err = r.readAll(ctx, name, &p)
		}
		p.Databases = len(names)
		return err
	})
	return p, err
}

// databases lists those of the temporary server that can be read, and lets the agent into all of them.
func (r *Restore) databases(ctx context.Context) ([]string, error) {
	dsn, err := pg.ParseDSN(r.server.DSN())
	if err != nil {
		return nil, err
	}
	conn, err := r.anywhere(ctx, dsn, plainly)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Settings of a database or a role may take rights from a session, or let it fail.
	if _, err := conn.Exec(ctx, `DELETE FROM pg_catalog.pg_db_role_setting`); err != nil {
		return nil, pg.Classify(err, "take the settings of databases and roles away")
	}
	// One whose DROP was under way has no files.
	rows, err := conn.Query(ctx, `UPDATE pg_catalog.pg_database SET datallowconn = true, datconnlimit = -1 WHERE datconnlimit <> -2 RETURNING datname`)
	if err != nil {
		return nil, pg.Classify(err, "list the databases of the temporary server")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, pg.Classify(err, "list the databases of the temporary server")
}

// plainly is how sessions read: nothing is converted, for values that have no equivalent in the
// client's encoding could not be read.
var plainly = pg.Session{Name: "restore/prove", Settings: map[string]string{"client_encoding": "SQL_ASCII"}}

func (r *Restore) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	dsn, err := pg.ParseDSN(r.server.DSN())
	if err != nil {
		return nil, err
	}
	return dsn.WithDatabase(database).Connect(ctx, plainly)
}

// plain takes what COPY of a table refuses or leaves out for what it reads: materialized views, which
// it refuses before version 18, and stored generated columns. The server is thrown away.
var plain = []string{
	`UPDATE pg_catalog.pg_class SET relkind = 'r' WHERE relkind = 'm'`,
	`UPDATE pg_catalog.pg_attribute SET attgenerated = '' WHERE attgenerated = 's'`,
}

// readAll reads the rows of a database's tables and materialized views, out of their storage alone.
// Each is read by COPY of the table: a query, even one within COPY, is planned, and the planner calls
// users' functions that are said to be immutable, which indexes, statistics and constraints name
// (plancat.c, get_relation_info). Here they would run as a superuser.
func (r *Restore) readAll(ctx context.Context, database string, p *backup.Proof) error {
	conn, err := r.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := forgetPrepared(ctx, conn); err != nil {
		return err
	}
	for _, sql := range plain {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return pg.Classify(err, "make the tables of a restored database ready to be read")
		}
	}
	rows, err := conn.Query(ctx, `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relispopulated AND n.nspname <> 'pg_toast' ORDER BY c.oid`)
	if err != nil {
		return pg.Classify(err, "list the tables of a restored database")
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "list the tables of a restored database")
	}
	for _, table := range tables {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := conn.PgConn().CopyTo(ctx, io.Discard, `COPY `+table+` TO STDOUT`)
		if err != nil {
			said := pg.Classify(err, "read a restored table")
			return problem.New(problem.Diverged, "restore_failed", "the table %s of the database %q, as it was restored, cannot be read: %s", table, database, problem.As(said).Error()).On(p.Set).
				WithHint("make a full backup now (twinspan backup now --type full), and look at the disk of the instance and of the repository")
		}
		p.Tables++
		p.Rows += n.RowsAffected()
	}
	return nil
}
