package link

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// signal takes what the primary says at a place of the stream, and returns what
// is to be done there. Kinds that a newer primary may send are passed over only
// when they are of no consequence; there are none yet.
func (l *Link) signal(ctx context.Context, kind string, payload []byte) (*apply.Script, error) {
	switch kind {
	case "ddl":
	case "barrier":
		return nil, l.meetBarrier(payload)
	default:
		return nil, nil
	}
	change, err := ddl.Parse(payload)
	if err != nil {
		return nil, err
	}
	script := change.Script()
	if len(script.Statements) == 0 {
		l.log.Info("schema change passed over", "tag", change.Tag, "subject", change.Subject())
		return nil, nil
	}
	if err := l.ensureRoles(ctx, change.NamedRoles()); err != nil {
		return nil, err
	}
	return &apply.Script{
		Statements: append(script.Statements, gate.EnsureSQL), Main: script.Main, Tag: change.Tag, Subject: change.Subject(),
		Renamed: change.RenamedSchemas(),
	}, nil
}

// meetBarrier notes that everything before a failover's barrier is committed here.
func (l *Link) meetBarrier(payload []byte) error {
	var barrier struct{ Operation string }
	if err := json.Unmarshal(payload, &barrier); err != nil {
		return problem.Wrap(err, problem.Internal, "stream_corrupt", "read a barrier")
	}
	if f := l.currentFailover(barrier.Operation); f != nil {
		f.met.Do(func() { close(f.barrier) })
	}
	return nil
}

// ensureRoles makes the roles that are missing, and tells the link's owner.
func (l *Link) ensureRoles(ctx context.Context, names []string) error {
	var made []string
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT w FROM unnest($1::text[]) w WHERE w NOT IN (SELECT rolname FROM pg_catalog.pg_roles)`, names)
		if err != nil {
			return pg.Classify(err, "look for roles")
		}
		missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return pg.Classify(err, "look for roles")
		}
		for _, name := range missing {
			// Another link of the instance may make it at the same time.
			if _, err := conn.Exec(ctx, `CREATE ROLE `+sqlname.Quote(name)+` NOLOGIN`); err != nil && pg.SQLState(err) != "42710" {
				return pg.Classify(err, "create the role "+name)
			}
			made = append(made, name)
		}
		return nil
	})
	if err != nil || len(made) == 0 {
		return err
	}
	return l.noteRoles(ctx, made)
}

// twinExtensions lists what can be created on the secondary's server.
func (l *Link) twinExtensions(ctx context.Context) ([]string, error) {
	var names []string
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT name FROM pg_catalog.pg_available_extensions ORDER BY 1`)
		if err != nil {
			return pg.Classify(err, "list extensions")
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return pg.Classify(err, "list extensions")
	})
	return names, err
}
