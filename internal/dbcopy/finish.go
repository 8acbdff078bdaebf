package dbcopy

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// free takes the schema twinspan away and gives triggers their modes, in one transaction.
// It returns what depended on the schema and went with it.
func (t *Target) free(ctx context.Context) (left []string, err error) {
	conn, err := t.dsn.Connect(ctx, pg.Session{Name: session + "/free", Apply: true, Settings: map[string]string{"client_min_messages": "error"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, gate.BackSQL); err != nil {
			return pg.Classify(err, "give triggers their modes")
		}
		// Event triggers that fire for replicas, too, would at what follows. No command on an
		// event trigger fires one.
		rows, err := tx.Query(ctx, `SELECT e.evtname, k.mode::text FROM twinspan.trigger_mode k JOIN pg_catalog.pg_event_trigger e
			ON k.class = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND e.oid = k.object ORDER BY 1`)
		if err != nil {
			return pg.Classify(err, "read the modes of event triggers")
		}
		type event struct{ Name, Mode string }
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return pg.Classify(err, "read the modes of event triggers")
		}
		names, err := catalog.Dependants(ctx, tx)
		if err != nil {
			return err
		}
		for _, name := range names {
			left = append(left, name+": depends on the schema twinspan, which the copy does not have")
		}
		if err := catalog.Remove(ctx, tx); err != nil {
			return err
		}
		for _, e := range events {
			mode := "ENABLE ALWAYS"
			if e.Mode == "R" {
				mode = "ENABLE REPLICA"
			}
			if _, err := tx.Exec(ctx, `ALTER EVENT TRIGGER `+sqlname.Quote(e.Name)+` `+mode); err != nil {
				return pg.Classify(err, "give event triggers their modes")
			}
		}
		return nil
	})
	return left, err
}

// namePatience bounds how long others may keep a finished copy from its name, by a session
// in it.
const namePatience = time.Minute

// name gives the copy its owner, the rights that a new database has where the source has
// those, and last its name.
func (t *Target) name(ctx context.Context, origin Origin) error {
	server, err := t.Server.Connect(ctx, pg.Session{Name: session + "/name", Settings: map[string]string{"lock_timeout": "10s"}})
	if err != nil {
		return err
	}
	defer server.Close(context.WithoutCancel(ctx))
	draft := sqlname.Quote(t.draft)
	if _, err := server.Exec(ctx, `ALTER DATABASE `+draft+` OWNER TO `+sqlname.Quote(origin.Owner)); err != nil {
		return pg.Classify(err, "give the copy its owner")
	}
	if !origin.Granted {
		if _, err := server.Exec(ctx, `GRANT CONNECT ON DATABASE `+draft+` TO PUBLIC`); err != nil {
			return pg.Classify(err, "let others into the copy")
		}
	}
	for end := time.Now().Add(namePatience); ; {
		// Whoever is in it looks at every database, as a monitor does.
		_, err := server.Exec(ctx, `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = $1`, t.draft)
		if err != nil {
			return pg.Classify(err, "end sessions in the unfinished copy")
		}
		_, err = server.Exec(ctx, `ALTER DATABASE `+draft+` RENAME TO `+sqlname.Quote(t.Name))
		switch {
		case err == nil:
			return nil
		case pg.SQLState(err) == "42P04":
			return exists(t.Name)
		case pg.SQLState(err) == "" && t.named(ctx):
			return nil // the answer was lost
		case pg.SQLState(err) != "55006" && pg.SQLState(err) != "55P03" || time.Now().After(end):
			return pg.Classify(err, "give the copy its name")
		}
	}
}

// named says whether the copy has its name and no draft is left.
func (t *Target) named(ctx context.Context) (is bool) {
	conn, err := t.Server.Connect(ctx, pg.Session{Name: session + "/name"})
	if err != nil {
		return false
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1) AND EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $2)`, t.draft, t.Name).Scan(&is)
	return err == nil && is
}

func exists(name string) error {
	return problem.New(problem.Conflict, "database_exists", "the server has a database %q already", name).On(name).WithHint("choose another name for the copy, or drop that database")
}
