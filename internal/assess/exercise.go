package assess

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// slotPatience is how long the trial of a slot waits for the transactions that
// are open: a slot begins where none of them is (snapbuild.c).
const slotPatience = 2 * time.Second

// exercise does what a link will do on the primary, and undoes it.
func (l *primaryLook) exercise(ctx context.Context) error {
	if l.blocked {
		return nil
	}
	if err := l.tryPublishing(ctx); err != nil {
		return err
	}
	return l.trySlot(ctx)
}

// tryPublishing makes an event trigger and a publication in transactions that are
// rolled back. What an event trigger that is enabled ALWAYS says to that, it will say to
// the link; one of a role's would say it as the agent, so nothing is tried beside it. Where the database is linked already, it was said.
func (l *primaryLook) tryPublishing(ctx context.Context) error {
	if l.linked || l.found.has("event_trigger_of_role") {
		return nil
	}
	refused, err := refusal(rolledBack(ctx, l.conn, `CREATE SCHEMA twinspan`, `CREATE PUBLICATION twinspan_check FOR ALL TABLES`))
	if err != nil {
		return err
	}
	if refused != "" {
		// A role that may not publish what is to come may publish what is its own.
		list, err := l.ownPublication(ctx)
		if err != nil {
			return err
		}
		if refused, err = refusal(rolledBack(ctx, l.conn, `CREATE SCHEMA twinspan`, list)); err != nil {
			return err
		}
	}
	if refused != "" {
		l.found.blocksIf(!l.found.has("schema_taken"), "publishing_refused", l.report.Source.Database, "the server refuses the schema or the publication that a link needs: "+refused,
			"give the agent's role that right, "+superuserRemedy(l.DSN.User())+"; if an event trigger of the database that is enabled ALWAYS refuses it: ALTER EVENT TRIGGER ... DISABLE while the link is created")
		return nil
	}
	return l.tryEvents(ctx)
}

// ownPublication returns a command that publishes the tables that are there.
func (l *primaryLook) ownPublication(ctx context.Context) (string, error) {
	var list string
	err := l.conn.QueryRow(ctx, `SELECT 'CREATE PUBLICATION twinspan_check' || coalesce(' FOR TABLE ' || string_agg(format('%I.%I', n.nspname, c.relname), ', '), '')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`).Scan(&list)
	return list, pg.Classify(err, "list tables")
}

// tryEvents makes an event trigger. Without, a link can only compare schemas.
func (l *primaryLook) tryEvents(ctx context.Context) error {
	refused, err := refusal(rolledBack(ctx, l.conn,
		`CREATE FUNCTION pg_temp.twinspan_check() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
		`CREATE EVENT TRIGGER twinspan_check ON ddl_command_end EXECUTE PROCEDURE pg_temp.twinspan_check()`))
	l.found.warnsIf(refused != "", "event_triggers_refused", l.DSN.User(),
		"the server refuses event triggers ("+refused+"): changes of schema do not cross, the schemas are compared instead, and a change on the primary stops the link",
		superuserRemedy(l.DSN.User()))
	if err != nil {
		return err
	}
	var off bool
	err = l.conn.QueryRow(ctx, `SELECT coalesce(current_setting('event_triggers', true), 'on') <> 'on'`).Scan(&off)
	l.found.warnsIf(off && refused == "", "event_triggers_off", "event_triggers",
		"event triggers are switched off on the server: changes of schema do not cross, the schemas are compared instead, and a change on the primary stops the link",
		"ALTER SYSTEM SET event_triggers = on; SELECT pg_reload_conf()")
	return pg.Classify(err, "look whether event triggers are on")
}

// trySlot makes a temporary slot over a connection for replication, as seeding does.
func (l *primaryLook) trySlot(ctx context.Context) error {
	session := pg.Session{Name: "check", Settings: map[string]string{"statement_timeout": fmt.Sprint(slotPatience.Milliseconds())}}
	conn, err := l.DSN.ConnectReplication(ctx, session)
	if err != nil {
		if pg.SQLState(err) == "" || problem.Retry(err) && pg.SQLState(err) != "53300" {
			return err
		}
		refused, _ := refusal(err)
		l.found.blocksIf(true, "replication_refused", l.DSN.User(), "the server refuses a connection for replication: "+refused,
			"allow the agent's address and role in pg_hba.conf for this database and for replication, and: ALTER ROLE "+sqlname.Quote(l.DSN.User())+" REPLICATION")
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	name := fmt.Sprintf("twinspan_check_%d", conn.PID())
	// The function, not the command: that would heed no timeout (walsender.c).
	_, err = conn.Exec(ctx, `SELECT pg_catalog.pg_create_logical_replication_slot(`+sqlname.Literal(name)+`, 'pgoutput', true)`).ReadAll()
	switch state := pg.SQLState(err); {
	case err == nil:
	case state == "57014":
		l.waited = true
	case state == "":
		return pg.Classify(err, "try a replication slot")
	default:
		refused, _ := refusal(err)
		l.found.blocksIf(true, "slot_refused", l.report.Source.Database, "the server refuses a logical replication slot: "+refused,
			"make sure that the server decodes with pgoutput, and that its role may replicate: ALTER ROLE "+sqlname.Quote(l.DSN.User())+" REPLICATION")
	}
	return nil
}

// transactions names what a link's slot has to wait for. Those of all databases
// count: the log is one.
func (l *primaryLook) transactions(ctx context.Context) error {
	f := &l.found
	rows, err := l.conn.Query(ctx, `SELECT gid, database::text, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts ORDER BY prepared`)
	if err != nil {
		return pg.Classify(err, "list prepared transactions")
	}
	var name, database string
	var age float64
	_, err = pgx.ForEachRow(rows, []any{&name, &database, &age}, func() error {
		literal := sqlname.Literal(name)
		f.warnsIf(true, "prepared_transaction", name, fmt.Sprintf("this transaction is prepared since %s in database %s; seeding waits until it is ended", span(age), database),
			"COMMIT PREPARED "+literal+" or ROLLBACK PREPARED "+literal+", in database "+sqlname.Quote(database))
		return nil
	})
	if err != nil {
		return pg.Classify(err, "list prepared transactions")
	}
	long := l.Long
	if long == 0 {
		long = 5 * time.Minute
	}
	rows, err = l.conn.Query(ctx, `SELECT pid, coalesce(datname::text, ''), coalesce(usename::text, ''), coalesce(state, ''), extract(epoch FROM clock_timestamp() - xact_start)::float8
		FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
		AND coalesce(backend_type, 'client backend') = 'client backend' ORDER BY xact_start`)
	if err != nil {
		return pg.Classify(err, "list open transactions")
	}
	var pid int
	var user, state string
	_, err = pgx.ForEachRow(rows, []any{&pid, &database, &user, &state, &age}, func() error {
		isLong := age >= long.Seconds()
		if !isLong && !l.waited {
			return nil
		}
		why := fmt.Sprintf("a transaction of %s in database %s is open since %s (%s); seeding waits until it is ended", user, database, span(age), state)
		remedy := fmt.Sprintf("end it in its application, or SELECT pg_terminate_backend(%d)", pid)
		f.warnsIf(isLong, "transaction_open", fmt.Sprintf("process %d", pid), why, remedy)
		f.informsIf(!isLong, "transaction_open", fmt.Sprintf("process %d", pid), why, remedy)
		return nil
	})
	return pg.Classify(err, "list open transactions")
}

// asReplica lets a transaction act as the sessions of links do where the role may: event
// triggers of the user, which see other settings than in his own sessions, do not fire.
const asReplica = `DO $$ BEGIN PERFORM pg_catalog.set_config('session_replication_role', 'replica', true); EXCEPTION WHEN insufficient_privilege THEN NULL; END $$`

// rolledBack runs statements in a transaction and rolls it back.
func rolledBack(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return pg.Classify(err, "try a right")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, sql := range append([]string{asReplica}, statements...) {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// refusal returns the server's words when it refused something, and the error
// when it was something else.
func refusal(err error) (string, error) {
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code[:2] != "57" && e.Code[:2] != "08" {
		return e.Message, nil
	}
	return "", pg.Classify(err, "try what a link needs")
}

// span writes seconds for people.
func span(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
