package catalog

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// leaseSQL makes the table of leases where a link of an older release lacks it.
const leaseSQL = `CREATE TABLE IF NOT EXISTS twinspan.lease (
    agent  uuid PRIMARY KEY,
    term   bigint NOT NULL,
    holder uuid NOT NULL,
    keeper integer NOT NULL,
    began  timestamptz NOT NULL,
    place  text NOT NULL
)`

// Lease is who works the links of an agent in a database.
type Lease struct {
	Agent  string // its id
	Holder string // id of the process that works
	Keeper uint32 // process id, in the server, of the session by which it is seen to live
	Began  string // when that session began, as the server writes it
	Place  string // where it runs, for people
}

// Held is a lease as it is found.
type Held struct {
	Lease
	Term  int64
	There bool // the keeper's session is there
	Fresh bool // and has been used lately, or nobody can tell
}

// ensureLease makes the table where it is missing.
func ensureLease(ctx context.Context, q Querier) error {
	have, err := haveTable(ctx, q, "twinspan.lease")
	if err != nil || have {
		return err
	}
	_, err = q.Exec(ctx, leaseSQL+PrivateSQL)
	return pg.Classify(err, "make the table of the leases")
}

// LookAtLease reads who works the links of an agent, nil for nobody. patience is how many
// seconds a keeper's session may be silent before it is not fresh. The table is read only if
// it is an agent's.
func LookAtLease(ctx context.Context, tx pgx.Tx, agent string, patience float64) (*Held, error) {
	if have, err := haveTable(ctx, tx, "twinspan.lease"); err != nil || !have {
		return nil, err
	}
	if err := lockTables(ctx, tx, "lease"); err != nil {
		return nil, err
	}
	var h Held
	// What a session of another role does is not shown to everybody: it is taken to be alive.
	err := tx.QueryRow(ctx, `SELECT l.agent::text, l.term, l.holder::text, l.keeper, l.began::text, l.place,
		a.pid IS NOT NULL AND coalesce(a.backend_start = l.began, true),
		coalesce(pg_catalog.clock_timestamp() - a.state_change < pg_catalog.make_interval(secs => $2), true)
		FROM ONLY twinspan.lease l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.keeper WHERE l.agent = $1::text::uuid`, agent, patience).
		Scan(&h.Agent, &h.Term, &h.Holder, &h.Keeper, &h.Began, &h.Place, &h.There, &h.Fresh)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, pg.Classify(err, "read who works the links")
	}
	return &h, nil
}

// Ask gives a statement to a session of whatever kind, and returns the one value of its
// answer, "" where there is none.
type Ask func(sql string) (string, error)

// Holder reads which process works the links of an agent in the database of a session that
// may be one for replication, which takes one simple statement at a time; "" for nobody. The database may be anybody's: the table
// is read once it is locked and seen to be an agent's, and in a copy of a linked database it says nothing.
func Holder(ask Ask, agent string) (holder, place string, err error) {
	if _, err := ask(`BEGIN READ ONLY`); err != nil {
		return "", "", err
	}
	holder, place, err = holderIn(ask, agent)
	if _, undo := ask(`ROLLBACK`); err == nil {
		err = undo
	}
	return holder, place, err
}

func holderIn(ask Ask, agent string) (holder, place string, err error) {
	plain := func(name string) (bool, error) {
		if _, err := ask(`LOCK TABLE ONLY twinspan.` + name + ` IN ACCESS SHARE MODE`); err != nil {
			return false, err
		}
		is, err := ask(plainSQL(name))
		return is == "t", err
	}
	if is, err := plain("lease"); err != nil || !is {
		return "", "", err
	}
	line, err := ask(`SELECT holder::text || ' ' || place FROM ONLY twinspan.lease WHERE agent = ` + sqlname.Literal(agent) + `::uuid`)
	if err != nil || line == "" {
		return "", "", err
	}
	holder, place, _ = strings.Cut(line, " ")
	noted, err := ask(`SELECT pg_catalog.to_regclass('twinspan.home') IS NOT NULL`)
	if err != nil || noted != "t" {
		return holder, place, err
	}
	if is, err := plain("home"); err != nil || !is {
		return holder, place, err
	}
	copied, err := ask(`SELECT EXISTS (SELECT FROM ONLY twinspan.home h WHERE CASE WHEN h.server = (SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() s)
		THEN h.database <> (SELECT d.oid::bigint FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
		ELSE h.relation <> 'twinspan.home'::pg_catalog.regclass::pg_catalog.oid::bigint END)`)
	if err != nil || copied == "t" {
		return "", "", err
	}
	return holder, place, nil
}

// TakeLease makes a process the one that works the links of its agent in a database, unless
// another one is seen to live, which is then returned. taken says that another one had it.
// Run it in a session that the gate lets pass.
func TakeLease(ctx context.Context, conn *pgx.Conn, want Lease, patience float64) (other *Held, taken bool, err error) {
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := ensureLease(ctx, tx); err != nil {
			return err
		}
		// One at a time; readers are not kept out.
		if _, err := tx.Exec(ctx, `LOCK TABLE twinspan.lease IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return pg.Classify(err, "lock the leases")
		}
		found, err := LookAtLease(ctx, tx, want.Agent, patience)
		if err != nil {
			return err
		}
		if found != nil && found.Holder != want.Holder {
			if found.There && found.Fresh {
				other = found
				return nil
			}
			taken = true
		}
		if found != nil && found.Lease == want {
			return nil
		}
		_, err = tx.Exec(ctx, `INSERT INTO twinspan.lease (agent, term, holder, keeper, began, place) VALUES ($1::text::uuid, 1, $2::text::uuid, $3, $4::text::timestamptz, $5)
			ON CONFLICT (agent) DO UPDATE SET term = lease.term + (lease.holder <> excluded.holder)::int, holder = excluded.holder, keeper = excluded.keeper,
			began = excluded.began, place = excluded.place`, want.Agent, want.Holder, want.Keeper, want.Began, want.Place)
		return pg.Classify(err, "take the lease")
	})
	if err != nil {
		return nil, false, err
	}
	return other, taken, nil
}

// sessionsSQL finds the other sessions in this database of the links of an agent ($1). Any
// role may take such a name for its sessions, so those of agents' roles alone count. Names are cut as
// the server cuts them.
const sessionsSQL = `SELECT a.pid FROM pg_catalog.pg_stat_activity a
	WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid() AND a.usesysid IN ` + trustedRoles + ` AND EXISTS (
		SELECT FROM twinspan.link l CROSS JOIN LATERAL (VALUES ('twinspan/' || l.name || '/'), ('twinspan/twinspan_' || pg_catalog.replace(l.id::text, '-', ''))) AS n (name)
		WHERE l.agent = $1::text::uuid AND pg_catalog.left(a.application_name, pg_catalog.length(n.name)) = pg_catalog.left(n.name, 63))`

// EndSessions ends the sessions in this database of the links of an agent, all but the
// caller's, and says how many there are still.
func EndSessions(ctx context.Context, q Querier, agent string) (left int, err error) {
	err = q.QueryRow(ctx, `SELECT count(pg_catalog.pg_terminate_backend(s.pid)) FROM (`+sessionsSQL+`) s`, agent).Scan(&left)
	return left, pg.Classify(err, "end the sessions of the agent of before")
}
