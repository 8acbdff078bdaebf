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
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

//go:embed gate.sql
var gateSQL string

// manner is how the tables' triggers are made and dropped.
type manner struct {
	batch    int           // tables locked in one transaction
	wait     time.Duration // for a lock, and so for those who wait behind
	patience time.Duration // how long it is tried to get a lock that a transaction holds
	end      bool          // then that transaction is ended
}

var (
	// quickly is for a secondary, where nobody but the agent and readers are.
	quickly = manner{200, time.Second, patience, false}
	// gently is for a primary: what waits there for a lock makes writers wait.
	gently = manner{1, 100 * time.Millisecond, patience, false}
)

// patience is how long closing and opening go on trying for a lock that a
// reader's transaction holds.
const patience = 2 * time.Minute

// The states of the gate, as the sequence twinspan.gate_state has them.
const (
	letThrough = 1
	refuse     = 2
	await      = 9999
)

// Shut makes the database refuse writes and schema changes, from new sessions on
// by default, from all sessions by the schema's event trigger. Tables are shut
// by ShutTables once they exist. It can be repeated. The session must be one of
// pg.Session{Apply: true}; as long as it lives, nobody takes the gate away, so that
// it has to live until the record of a link calls for the gate.
func Shut(ctx context.Context, conn *pgx.Conn) error {
	if err := build(ctx, conn); err != nil {
		return err
	}
	return RefuseNow(ctx, conn)
}

// build makes what the gate consists of, but for the triggers of tables.
func build(ctx context.Context, conn *pgx.Conn) error {
	return whileBuilding(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, catalog.HomeSQL()+strings.Replace(gateSQL, openTablesMark, openTables, 1)+asideSQL+catalog.PrivateSQL); err != nil {
			return pg.Classify(err, "create the gate")
		}
		var have bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_event_trigger WHERE `+wholeDDL+`)`).Scan(&have)
		if err == nil && !have {
			_, err = tx.Exec(ctx, `DROP EVENT TRIGGER IF EXISTS twinspan_gate; CREATE EVENT TRIGGER twinspan_gate ON ddl_command_start EXECUTE PROCEDURE twinspan.gate_ddl()`)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `ALTER EVENT TRIGGER twinspan_gate ENABLE ALWAYS`)
		}
		return pg.Classify(err, "create the gate's event trigger")
	})
}

// Querier is a session or a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Refuse makes a gate that is there refuse writes: at once, whatever becomes of the
// transaction that it is run in. That new sessions are read-only by default is part
// of that transaction.
func Refuse(ctx context.Context, q Querier) error {
	if err := Bar(ctx, q); err != nil {
		return err
	}
	return ReadOnly(ctx, q)
}

// RefuseNow is Refuse, and ends whoever keeps the database's settings from being changed.
func RefuseNow(ctx context.Context, conn *pgx.Conn) error {
	return pg.Insist(ctx, conn, time.Second, func() error { return Refuse(ctx, conn) })
}

// ReadOnlyNow is ReadOnly, and ends whoever keeps the database's settings from being
// changed.
func ReadOnlyNow(ctx context.Context, conn *pgx.Conn) error {
	return pg.Insist(ctx, conn, time.Second, func() error { return ReadOnly(ctx, conn) })
}

// Bar is the part of Refuse that waits for nobody.
func Bar(ctx context.Context, q Querier) error { return set(ctx, q, refuse) }

// ReadOnly makes new sessions read-only by default. It waits for whoever is changing
// the database's settings.
func ReadOnly(ctx context.Context, q Querier) error {
	return byDefault(ctx, q, `SET default_transaction_read_only = on`)
}

// ReadWrite makes new sessions read/write by default. It waits as ReadOnly does.
func ReadWrite(ctx context.Context, q Querier) error {
	return byDefault(ctx, q, `RESET default_transaction_read_only`)
}

// LetThrough makes a gate that is there let writers pass, at once: run it only when
// what allows that is committed.
func LetThrough(ctx context.Context, q Querier) error {
	if err := set(ctx, q, letThrough); err != nil {
		return err
	}
	return ReadWrite(ctx, q)
}

// Brake makes writing transactions on a staged primary begin later by so much, a
// second at most, so that the twin can catch up. LetThrough and Refuse end it.
func Brake(ctx context.Context, q Querier, delay time.Duration) error {
	return set(ctx, q, refuse+int(min(max(delay, time.Millisecond), time.Second).Milliseconds()))
}

func set(ctx context.Context, q Querier, state int) error {
	var now *int64 // none where there is no gate
	err := q.QueryRow(ctx, `SELECT setval(to_regclass('twinspan.gate_state'), $1::bigint)`, state).Scan(&now)
	return pg.Classify(err, "set the gate")
}

// mostTries is how often a setting of the database is given where others give some at that moment.
const mostTries = 5

func byDefault(ctx context.Context, q Querier, setting string) error {
	var database string
	err := q.QueryRow(ctx, `SELECT current_database()`).Scan(&database)
	for tries := 1; err == nil; tries++ {
		_, err = q.Exec(ctx, `ALTER DATABASE `+sqlname.Quote(database)+` `+setting)
		err = pg.Classify(err, "say to new sessions whether the database is read-only")
		// Somebody has changed the settings of the database while it waited for him.
		if conn, alone := q.(*pgx.Conn); problem.CodeOf(err) != "serialization_failure" || !alone || conn.PgConn().TxStatus() != 'I' || tries == mostTries {
			return err
		}
		err = nil
	}
	return pg.Classify(err, "say to new sessions whether the database is read-only")
}

// ShutTables gives every table that lacks it the gate's trigger. Partitions and
// children need their own, for a statement may name them.
func ShutTables(ctx context.Context, conn *pgx.Conn) error {
	_, err := shutTables(ctx, conn, quickly)
	return err
}

func shutTables(ctx context.Context, conn *pgx.Conn, m manner) (ended int, err error) {
	return each(ctx, conn, m, `SELECT format('%I.%I', n.nspname, c.relname), ''`+openTables, func(t gated) string {
		return `SELECT twinspan.shut_gate(to_regclass(` + sqlname.Literal(t.table) + `))`
	})
}

// Stage builds the gate on a primary that works, and has it let everybody through.
// No lock is waited for longer than a tenth of a second. Every transaction that
// writes to a table after its trigger was made passes the gate, and making it has
// waited for those before; transactions that hold it up for longer than drain are
// ended, and counted. It can be repeated.
func Stage(ctx context.Context, conn *pgx.Conn, drain time.Duration) (ended int, err error) {
	if err := build(ctx, conn); err != nil {
		return 0, err
	}
	m := gently
	m.patience, m.end = drain, true
	return shutTables(ctx, conn, m)
}

// Open takes the gate away: the database accepts writes again. It can be repeated,
// also while the database is written to. Where a link besides the one that is named
// needs the gate, or a cutover has left it, it stays as it is. The session must end
// after it.
func Open(ctx context.Context, conn *pgx.Conn, besides string) error {
	if err := claimAlone(ctx, conn); err != nil {
		return err
	}
	if needed, err := Needed(ctx, conn, besides); err != nil || needed {
		return err
	}
	if err := PutBack(ctx, conn); err != nil {
		return err
	}
	if err := LetThrough(ctx, conn); err != nil {
		return err
	}
	var there bool // another link of the database may have been quicker
	err := conn.QueryRow(ctx, `SELECT to_regclass('twinspan.gate_state') IS NOT NULL`).Scan(&there)
	if err != nil || !there {
		return pg.Classify(err, "look for the gate")
	}
	if _, err := conn.Exec(ctx, `DROP EVENT TRIGGER IF EXISTS twinspan_gate`); err != nil {
		return pg.Classify(err, "drop the gate's event trigger")
	}
	if err := pg.AwaitCommands(ctx, conn); err != nil {
		return err
	}
	_, err = each(ctx, conn, gently, `SELECT format('%I.%I', n.nspname, c.relname), t.tgname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgfoid = to_regprocedure('twinspan.gate()') WHERE c.relpersistence <> 't' ORDER BY c.oid`, func(t gated) string {
		return `DROP TRIGGER IF EXISTS ` + sqlname.Quote(t.trigger) + ` ON ` + t.table
	})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `DROP FUNCTION twinspan.gate(), twinspan.gate_ddl(), twinspan.refuse(text), twinspan.shut_gate(oid);
		DROP FUNCTION IF EXISTS twinspan.ticket(text, oid), twinspan.by_superuser(), twinspan.put_aside(), twinspan.put_back(), twinspan.put_back_for_change(), twinspan.modes(), twinspan.modes("char"[]), twinspan.shut_gates(); DROP SEQUENCE twinspan.gate_state`)
	return pg.Classify(err, "drop the gate's functions")
}

// gated is a table, quoted and with its schema, and its trigger of the gate where it has one.
type gated struct{ table, trigger string }

// each runs a statement for each table that a query lists. It returns how many transactions were
// ended for it.
func each(ctx context.Context, conn *pgx.Conn, m manner, query string, statement func(gated) string) (ended int, err error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return 0, pg.Classify(err, "list tables")
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t gated, err error) {
		return t, row.Scan(&t.table, &t.trigger)
	})
	if err != nil {
		return 0, pg.Classify(err, "list tables")
	}
	end := time.Now().Add(m.patience)
	for n := m.batch; len(tables) > 0; {
		n = min(n, len(tables))
		err := apply(ctx, conn, m, tables[:n], statement)
		switch {
		case err == nil:
			tables, n = tables[n:], min(2*n, m.batch)
			continue
		case n > 1 && (problem.CodeOf(err) == "lock_not_available" || settled(err)):
			// One of them is locked, or done with: find it without holding the others.
			n = 1
			continue
		case settled(err):
			tables = tables[1:]
			continue
		case problem.CodeOf(err) != "lock_not_available" || time.Now().After(end) && !m.end || time.Now().After(end.Add(endPatience)):
			return ended, inTheWay(ctx, conn, tables[0].table, err)
		case time.Now().After(end):
			more, err := endHolders(ctx, conn, tables[0].table)
			if err != nil {
				return ended, err
			}
			ended += more
		}
		tables = append(tables[1:], tables[0]) // the others first
		select {
		case <-ctx.Done():
			return ended, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return ended, nil
}

// settled says that a table is gone, or has its trigger from another link meanwhile.
func settled(err error) bool { return pg.SQLState(err) == "42P01" || pg.SQLState(err) == "42710" }

// inTheWay says whose lock keeps a table's gate from being changed, if it is known.
func inTheWay(ctx context.Context, conn *pgx.Conn, table string, err error) error {
	if problem.CodeOf(err) == "lock_not_available" {
		if list, looked := pg.Holders(ctx, conn, table); looked == nil {
			if p := pg.Waited("the gate of "+table+" cannot be changed", list); p != nil {
				return p
			}
		}
	}
	return fmt.Errorf("gate of %s: %w", table, err)
}

// endHolders ends the transactions that hold a lock on a table for writing.
func endHolders(ctx context.Context, conn *pgx.Conn, table string) (ended int, err error) {
	err = conn.QueryRow(ctx, `SELECT count(DISTINCT pid) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_locks
		WHERE locktype = 'relation' AND relation = to_regclass($1) AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND granted AND pid <> pg_backend_pid() AND mode <> 'AccessShareLock' AND mode <> 'RowShareLock'`, table).Scan(&ended)
	return ended, pg.Classify(err, "end transactions that hold up the gate of "+table)
}

// apply runs a statement for each of the tables in one transaction.
func apply(ctx context.Context, conn *pgx.Conn, m manner, tables []gated, statement func(gated) string) error {
	var sql strings.Builder
	// A vacuum in the way gives way sooner than the lock's wait ends.
	fmt.Fprintf(&sql, "SET LOCAL lock_timeout = '%dms'; SET LOCAL deadlock_timeout = '%dms';", m.wait.Milliseconds(), min(100, m.wait.Milliseconds()/2))
	for _, t := range tables {
		sql.WriteString(statement(t) + ";")
	}
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql.String())
		return pg.Classify(err, "change the gate's triggers")
	})
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("'%dms'", d.Milliseconds()) }
