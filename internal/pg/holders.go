package pg

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/problem"
)

// Holder is a transaction that keeps others waiting.
type Holder struct {
	PID   int       // of its server process; 0 of a prepared one
	GID   string    // of a prepared one
	Role  string    // "" where the server does not say
	Mode  string    // of the lock, as pg_locks has it; "" where it is no lock that is waited for
	Since time.Time // when the transaction began, or was prepared
}

// String says which it is, in one line.
func (h Holder) String() string {
	var b strings.Builder
	if h.PID == 0 {
		fmt.Fprintf(&b, "the prepared transaction %q", h.GID)
	} else {
		fmt.Fprintf(&b, "server process %d", h.PID)
	}
	var about []string
	if h.Role != "" {
		about = append(about, "role "+h.Role)
	}
	if h.Mode != "" {
		about = append(about, h.Mode)
	}
	if !h.Since.IsZero() {
		about = append(about, "since "+h.Since.UTC().Format("15:04:05"))
	}
	if len(about) > 0 {
		b.WriteString(" (" + strings.Join(about, ", ") + ")")
	}
	return b.String()
}

// Remedy says how a person ends it.
func (h Holder) Remedy() string {
	if h.PID == 0 {
		return "finish it: COMMIT PREPARED or ROLLBACK PREPARED"
	}
	return fmt.Sprintf("end it: SELECT pg_terminate_backend(%d)", h.PID)
}

// Waited makes a problem of those who were waited for in vain; nil where there are
// none. A prepared transaction comes first, for it does not end by itself.
func Waited(what string, holders []Holder) *problem.Error {
	if len(holders) == 0 {
		return nil
	}
	first := holders[0]
	for _, h := range holders {
		if h.PID == 0 {
			first = h
			break
		}
	}
	kind, code, subject := problem.Transient, "lock_not_available", fmt.Sprint(first.PID)
	if first.PID == 0 {
		kind, code, subject = problem.Conflict, "transaction_prepared", first.GID
	}
	var others string
	if n := len(holders) - 1; n > 0 {
		others = fmt.Sprintf(" and %d more", n)
	}
	return problem.New(kind, code, "%s: %s%s is not finished", what, first, others).On(subject).WithHint("%s", first.Remedy())
}

// holderColumns are those of Holder, of a lock l.
const holderColumns = `coalesce(l.pid, 0), coalesce(p.gid, ''), coalesce(a.usename::text, p.owner::text, ''), l.mode,
	coalesce(a.xact_start, p.prepared, 'epoch')`

// holderJoins tell whose a lock l is. A prepared transaction bears the virtual number
// that it had as a session's (twophase.c, MarkAsPreparingGuts), and is known by the
// lock on its own number.
const holderJoins = `LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
	LEFT JOIN pg_catalog.pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
	LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid`

// Holders lists who holds locks on a relation of this database that keep a writer's
// or a changer's from being had, readers not included. table is quoted, with its
// schema. Before version 18 the name of a role is told to everybody.
func Holders(ctx context.Context, q Rows, table string) ([]Holder, error) {
	return holders(ctx, q, `SELECT `+holderColumns+` FROM pg_catalog.pg_locks l `+holderJoins+`
		WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND l.relation = pg_catalog.to_regclass($1::text)
		AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
		ORDER BY 5, 1`, table)
}

// Changing lists the transactions of this database that have made or changed relations and are
// not finished: each holds the strongest lock on one.
func Changing(ctx context.Context, q Rows) ([]Holder, error) {
	return holders(ctx, q, `SELECT DISTINCT `+holderColumns+` FROM pg_catalog.pg_locks l `+holderJoins+`
		WHERE $1::text = '' AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
		AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 5, 1`, "")
}

// Prepared lists the prepared transactions of a database; of all with "".
func Prepared(ctx context.Context, q Rows, database string) ([]Holder, error) {
	return holders(ctx, q, `SELECT 0, gid, owner::text, '', prepared FROM pg_catalog.pg_prepared_xacts WHERE $1::text IN ('', database::text) ORDER BY prepared`, database)
}

// Writing lists the transactions of the whole instance that have a number, the oldest
// first: what a slot waits for when it is made.
func Writing(ctx context.Context, q Rows) ([]Holder, error) {
	return holders(ctx, q, `SELECT 0, gid, owner::text || ' in database ' || database::text, '', prepared FROM pg_catalog.pg_prepared_xacts WHERE $1::text = ''
		UNION ALL SELECT pid, '', coalesce(usename::text, '') || coalesce(' in database ' || datname::text, ''), '', coalesce(xact_start, 'epoch')
		FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() ORDER BY 5`, "")
}

func holders(ctx context.Context, q Rows, sql, arg string) ([]Holder, error) {
	rows, err := q.Query(ctx, sql, arg)
	if err != nil {
		return nil, Classify(err, "look who holds a lock")
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Holder, error) {
		var h Holder
		err := row.Scan(&h.PID, &h.GID, &h.Role, &h.Mode, &h.Since)
		if h.Since.Unix() == 0 {
			h.Since = time.Time{}
		}
		return h, err
	})
	return list, Classify(err, "look who holds a lock")
}

// LockFor opens a session that holds a lock of a relation which the agent alone may
// lock, until release is called or the session is lost. It waits no longer than
// patience, and somewhat less than ctx allows; then the problem names who has it. table
// and mode are those of a LOCK statement.
func (d *DSN) LockFor(ctx context.Context, s Session, table, mode string, patience time.Duration) (release func(), err error) {
	conn, err := d.Connect(ctx, s)
	if err != nil {
		return nil, err
	}
	if end, bounded := ctx.Deadline(); bounded {
		patience = max(time.Millisecond, min(patience, time.Until(end)-lockedLook))
	}
	release = func() { conn.Close(context.WithoutCancel(ctx)) }
	_, err = conn.Exec(ctx, fmt.Sprintf(`BEGIN; SET LOCAL lock_timeout = '%dms'; LOCK TABLE %s IN %s MODE`, patience.Milliseconds(), table, mode))
	if err == nil {
		return release, nil
	}
	err = Classify(err, "lock "+table)
	if SQLState(err) == "55P03" {
		if _, undone := conn.Exec(ctx, `ROLLBACK`); undone == nil {
			if list, looked := Holders(ctx, conn, table); looked == nil && len(list) > 0 {
				err = Waited("wait for "+table, list)
			}
		}
	}
	release()
	return nil, err
}
