// Package gate is what lets writers through on a primary and refuses them on a
// secondary: triggers for rows, an event trigger for the schema, and the default
// that tells libpq's target_session_attrs which side is which.
//
// A session that keeps the database's default is refused by PostgreSQL itself
// ("cannot execute INSERT in a read-only transaction"), before any trigger runs;
// one that makes itself read/write is refused by the gate, with the link's name
// and the primary's address.
package gate

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

//go:embed gate.sql
var gateSQL string

// batch is how many tables are locked in one transaction.
const batch = 200

// patience is how long closing and opening go on trying for a lock that a
// reader's transaction holds.
const patience = 2 * time.Minute

// Shut makes the database refuse writes and schema changes, from new sessions on
// by default, from all sessions by the schema's event trigger. Tables are shut
// by ShutTables once they exist. It can be repeated. The session must be one of
// pg.Session{Apply: true}.
func Shut(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, gateSQL); err != nil {
		return pg.Classify(err, "create the gate")
	}
	var database string
	var have bool
	err := conn.QueryRow(ctx, `SELECT current_database(), EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'twinspan_gate')`).Scan(&database, &have)
	if err != nil {
		return pg.Classify(err, "look for the gate")
	}
	if !have {
		if _, err := conn.Exec(ctx, `CREATE EVENT TRIGGER twinspan_gate ON ddl_command_start EXECUTE FUNCTION twinspan.gate_ddl()`); err != nil {
			return pg.Classify(err, "create the gate's event trigger")
		}
	}
	_, err = conn.Exec(ctx, `ALTER DATABASE `+sqlname.Quote(database)+` SET default_transaction_read_only = on`)
	return pg.Classify(err, "make the database read-only by default")
}

// ShutTables gives every table that lacks it the gate's trigger. Partitions and
// children need their own, for a statement may name them.
func ShutTables(ctx context.Context, conn *pgx.Conn) error {
	return each(ctx, conn, `NOT EXISTS`, func(t table) string {
		truncate := " OR TRUNCATE"
		if t.Kind == "f" {
			truncate = "" // foreign tables take it only in newer versions, and write through to elsewhere
		}
		return `CREATE TRIGGER twinspan_gate BEFORE INSERT OR UPDATE OR DELETE` + truncate + ` ON ` + t.Name +
			` FOR EACH STATEMENT EXECUTE FUNCTION twinspan.gate()`
	})
}

// Open takes the gate away: the database accepts writes again. It can be repeated.
func Open(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `DROP EVENT TRIGGER IF EXISTS twinspan_gate`); err != nil {
		return pg.Classify(err, "drop the gate's event trigger")
	}
	err := each(ctx, conn, `EXISTS`, func(t table) string { return `DROP TRIGGER IF EXISTS twinspan_gate ON ` + t.Name })
	if err != nil {
		return err
	}
	var database string
	if err := conn.QueryRow(ctx, `SELECT current_database()`).Scan(&database); err != nil {
		return pg.Classify(err, "open the gate")
	}
	if _, err := conn.Exec(ctx, `ALTER DATABASE `+sqlname.Quote(database)+` RESET default_transaction_read_only`); err != nil {
		return pg.Classify(err, "make the database read/write by default")
	}
	_, err = conn.Exec(ctx, `DROP FUNCTION IF EXISTS twinspan.gate(), twinspan.gate_ddl(), twinspan.refuse(text)`)
	return pg.Classify(err, "drop the gate's functions")
}

type table struct {
	Name string // quoted, with schema
	Kind string
}

// each runs a statement for each table that has, or has not, the gate's trigger.
func each(ctx context.Context, conn *pgx.Conn, having string, statement func(table) string) error {
	rows, err := conn.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
		AND `+having+` (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'twinspan_gate' AND t.tgparentid = 0) ORDER BY c.oid`)
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	end := time.Now().Add(patience)
	for n := batch; len(tables) > 0; {
		n = min(n, len(tables))
		err := apply(ctx, conn, tables[:n], statement)
		switch {
		case err == nil:
			tables, n = tables[n:], min(2*n, batch)
			continue
		case n > 1 && (problem.CodeOf(err) == "lock_not_available" || pg.SQLState(err) == "42P01"):
			// One of them is locked, or gone: find it without holding the others.
			n = 1
			continue
		case pg.SQLState(err) == "42P01":
			tables = tables[1:]
			continue
		case problem.CodeOf(err) != "lock_not_available" || time.Now().After(end):
			return fmt.Errorf("gate of %d tables: %w", len(tables), err)
		}
		tables = append(tables[1:], tables[0]) // the others first
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// apply runs a statement for each of the tables in one transaction, waiting no
// longer than a second for a lock.
func apply(ctx context.Context, conn *pgx.Conn, tables []table, statement func(table) string) error {
	var sql strings.Builder
	// A vacuum in the way gives way sooner than the lock's wait ends.
	sql.WriteString("SET LOCAL lock_timeout = '1s'; SET LOCAL deadlock_timeout = '100ms';")
	for _, t := range tables {
		sql.WriteString(statement(t) + ";")
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql.String())
		return pg.Classify(err, "change the gate's triggers")
	})
}
