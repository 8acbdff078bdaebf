package catalog

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Stray is a link's record that an agent without its directory may take over.
type Stray struct {
	*Link
	Contact *Contact // of the peer, nil where the database has none
	// Doubt says why nothing shows that the record was made for this database; "" where
	// something does.
	Doubt string
	// Holder is who works the agent's links here, as far as it is noted.
	Holder *Held
	// Sessions is how many sessions of the link there are.
	Sessions int
}

// Strays looks for records of whichever agent in a database that may be anybody's, with the
// care of Discover. A database whose schema twinspan the session's role could not take over is
// a problem with code adopt_rights.
func Strays(ctx context.Context, conn *pgx.Conn, patience float64) ([]Stray, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, pg.Classify(err, "begin to look into the database")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	have, err := presentLocked(ctx, tx)
	if err != nil || !have {
		return nil, err
	}
	if err := mayAdopt(ctx, tx); err != nil {
		return nil, err
	}
	if err := lockTables(ctx, tx, "link"); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM ONLY twinspan.link ORDER BY name`)
	if err != nil {
		return nil, pg.Classify(err, "read the links")
	}
	links, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, pg.Classify(err, "read the links")
	}
	for _, table := range []string{"peer", "lease", "home"} { // which older releases lack
		if have, err := haveTable(ctx, tx, "twinspan."+table); err != nil {
			return nil, err
		} else if !have {
			continue
		}
		if err := lockTables(ctx, tx, table); err != nil {
			return nil, err
		}
	}
	known := map[string]Contact{}
	if have, err := haveTable(ctx, tx, "twinspan.peer"); err != nil {
		return nil, err
	} else if have {
		if known, err = contacts(ctx, tx); err != nil {
			return nil, err
		}
	}
	var strays []Stray
	for _, l := range links {
		s := Stray{Link: l}
		if c, ok := known[l.ID]; ok {
			s.Contact = &c
		}
		if s.Doubt, err = doubt(ctx, tx, l); err != nil {
			return nil, err
		}
		if s.Holder, err = LookAtLease(ctx, tx, l.Agent, patience); err != nil {
			return nil, err
		}
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM (`+sessionsSQL+`) s`, l.Agent).Scan(&s.Sessions); err != nil {
			return nil, pg.Classify(err, "look for sessions of the link")
		}
		strays = append(strays, s)
	}
	return strays, nil
}

// mayAdopt refuses a role that neither is a superuser nor has made the schema.
func mayAdopt(ctx context.Context, q Querier) error {
	var may bool
	var role string
	err := q.QueryRow(ctx, `SELECT r.rolsuper OR n.nspowner = r.oid, r.rolname FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n
		WHERE r.rolname = current_user AND n.nspname = 'twinspan'`).Scan(&may, &role)
	if err != nil {
		return pg.Classify(err, "see whose the schema twinspan is")
	}
	if !may {
		return problem.New(problem.Unauthorised, "adopt_rights", "the role %q is no superuser and has not made the schema twinspan: it cannot take links over", role).On(role).
			WithHint("give --postgres the role of the agent of before, or a superuser's")
	}
	return nil
}

// doubt looks for what shows that a link's record was made for this database: what the
// agent noted of it, or the slot or the origin, which no dump carries.
func doubt(ctx context.Context, q Querier, l *Link) (string, error) {
	var slot, origin bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND database = pg_catalog.current_database()),
		EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = $1)`, ObjectName(l.ID)).Scan(&slot, &origin)
	if err != nil {
		return "", pg.Classify(err, "look for the link's slot and origin")
	}
	var noted, server, database, relation bool
	if have, err := haveTable(ctx, q, "twinspan.home"); err != nil {
		return "", err
	} else if have {
		err := q.QueryRow(ctx, `SELECT count(*) = 1, coalesce(bool_and(h.server = s.system_identifier::text), false),
			coalesce(bool_and(h.database = d.oid::bigint), false), coalesce(bool_and(h.relation = 'twinspan.home'::pg_catalog.regclass::pg_catalog.oid::bigint), false)
			FROM ONLY twinspan.home h, pg_catalog.pg_control_system() s, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`).
			Scan(&noted, &server, &database, &relation)
		if err != nil {
			return "", pg.Classify(err, "see which database was linked")
		}
	}
	switch {
	case noted && server && database && relation:
		return "", nil
	case noted && server:
		return "the database is a copy of the linked one", nil
	case slot || origin:
		return "", nil
	case noted:
		return "the linked database is another server's", nil
	}
	return "neither a slot nor an origin of the link is on this server", nil
}

// Adopt makes records the agent's own: it proves them with the agent's key, in a database
// that Strays has looked into, once it is known that nobody else works them. Run it in a session that
// the gate lets pass.
func Adopt(ctx context.Context, conn *pgx.Conn, links []*Link, key Key) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		for _, l := range links {
			stored, err := Get(ctx, tx, l.ID)
			if err != nil {
				return err
			}
			if stored.Agent != l.Agent {
				return problem.New(problem.Conflict, "link_moved_on", "the link's record is another agent's meanwhile").On(l.Name)
			}
			if err := Prove(ctx, tx, l, key); err != nil {
				return err
			}
		}
		return nil
	})
}
