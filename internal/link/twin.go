package link

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// MakeTwin makes the secondary's database, if it is not there, with the link's
// record in it and its gate shut. A database that exists must be empty. A new one
// is made under another name and gets its own only once the record is in it, so
// that a half-made one is never taken for the user's.
func MakeTwin(ctx context.Context, place Place, peerName, peerAgent string, request CreateRequest) (*Link, error) {
	record := catalog.Link{
		ID: request.ID, Name: request.Name, Agent: place.Agent, Peer: peerName, PeerAgent: peerAgent, PeerDatabase: request.Source.Database,
		Role: string(role.Secondary), Phase: string(role.Creating), Epoch: request.Epoch, Mode: request.Mode, SyncTimeout: request.SyncTimeout, OnConflict: request.OnConflict, PrimaryAddress: request.PrimaryAddress,
		MaxRate: request.MaxRate, Notices: request.Notices,
	}
	server, err := place.Server.Connect(ctx, pg.Session{Name: request.Name + "/create"})
	if err != nil {
		return nil, err
	}
	defer server.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := server.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, request.Database).Scan(&exists); err != nil {
		return nil, pg.Classify(err, "look for the database")
	}
	if exists {
		dsn := place.Server.WithDatabase(request.Database)
		empty, err := assess.Empty(ctx, dsn)
		if err != nil {
			return nil, err
		}
		if !empty {
			return nil, problem.New(problem.Conflict, "target_not_empty", "database %q exists on the secondary and is not empty", request.Database).
				On(request.Database).WithHint("choose another name with --peer-database, or drop it there")
		}
		if err := inscribe(ctx, dsn, &record, place.Key); err != nil {
			return nil, err
		}
		return New(place, request.Database, record), nil
	}
	record.CreatedDatabase = true
	draft := "twinspan new " + request.ID
	if _, err := server.Exec(ctx, `DROP DATABASE IF EXISTS `+sqlname.Quote(draft)+` WITH (FORCE)`); err != nil {
		return nil, pg.Classify(err, "drop an unfinished database")
	}
	if err := dbcopy.CreateDatabase(ctx, server, draft, request.Source); err != nil {
		return nil, err
	}
	made, err := own(ctx, server, draft, request.Source.Owner)
	if made != nil {
		record.Notices = append(record.Notices, *made)
	}
	if err == nil {
		err = inscribe(ctx, place.Server.WithDatabase(draft), &record, place.Key)
	}
	if err == nil {
		_, err = server.Exec(ctx, `ALTER DATABASE `+sqlname.Quote(draft)+` RENAME TO `+sqlname.Quote(request.Database))
		err = pg.Classify(err, "name the twin's database")
	}
	if err != nil {
		_, dropped := server.Exec(context.WithoutCancel(ctx), `DROP DATABASE IF EXISTS `+sqlname.Quote(draft)+` WITH (FORCE)`)
		return nil, errors.Join(err, dropped)
	}
	return New(place, request.Database, record), nil
}

// own gives the database the owner that the primary's has. A role that is missing
// is made, which the notice says.
func own(ctx context.Context, server *pgx.Conn, database, owner string) (*catalog.Notice, error) {
	var made *catalog.Notice
	var have bool
	if err := server.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, owner).Scan(&have); err != nil {
		return nil, pg.Classify(err, "look for the role that owns the database")
	}
	if !have {
		if _, err := server.Exec(ctx, `CREATE ROLE `+sqlname.Quote(owner)+` NOLOGIN`); err != nil {
			return nil, pg.Classify(err, "create the role that owns the database")
		}
		n := dbroles.Created(owner)
		made = &n
	}
	_, err := server.Exec(ctx, `ALTER DATABASE `+sqlname.Quote(database)+` OWNER TO `+sqlname.Quote(owner))
	return made, pg.Classify(err, "give the database its owner")
}

// inscribe puts the record into the database and shuts the gate.
func inscribe(ctx context.Context, dsn *pg.DSN, record *catalog.Link, key catalog.Key) error {
	conn, err := dsn.Connect(ctx, pg.Session{Name: record.Name + "/create", Apply: true})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := catalog.Install(ctx, tx); err != nil {
			return err
		}
		if err := catalog.Insert(ctx, tx, record); err != nil {
			return err
		}
		if err := catalog.Prove(ctx, tx, record, key); err != nil {
			return err
		}
		if err := catalog.AddNotices(ctx, tx, record, record.Notices); err != nil {
			return err
		}
		stored, err := catalog.Get(ctx, tx, record.ID)
		if err == nil {
			*record = *stored
		}
		return err
	})
	if err != nil {
		return err
	}
	return gate.Shut(ctx, conn)
}

// removeTwin takes the link away from the secondary. A whole copy becomes an
// independent database; an unfinished one is dropped, or emptied where the
// database was there before the link.
func (l *Link) removeTwin(ctx context.Context, r catalog.Link) error {
	l.side.Session.Close()
	server, err := l.place.Server.Connect(ctx, pg.Session{Name: r.Name + "/delete"})
	if err != nil {
		return err
	}
	defer server.Close(context.WithoutCancel(ctx))
	// The origin first: it belongs to the instance and would stay behind.
	if err := origin.Drop(ctx, server, r.ID); err != nil {
		return err
	}
	if !r.Seeded && r.CreatedDatabase {
		_, err := server.Exec(ctx, `DROP DATABASE IF EXISTS `+sqlname.Quote(l.database)+` WITH (FORCE)`)
		return pg.Classify(err, "drop the unfinished copy")
	}
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: r.Name + "/delete", Apply: true})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if !r.Seeded {
		if err := clear(ctx, conn); err != nil {
			return err
		}
	}
	var left leftovers
	if err := left.look(ctx, conn, r.ID); err != nil {
		return err
	}
	if left.capture { // it was the primary once, or was about to be
		source := l.source()
		if err := source.Remove(ctx, !left.primaries); err != nil {
			return err
		}
	}
	if r.Operation == catalog.Cutover {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if err := catalog.Delete(ctx, tx, r.ID); err != nil {
				return err
			}
			return gate.Keep(ctx, tx, r.Name, r.Peer, r.PeerDatabase, r.PrimaryAddress)
		})
	}
	if err := gate.Open(ctx, conn, r.ID); err != nil {
		return err
	}
	l.endLoops()
	return l.side.Session.End(func() error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if err := catalog.Delete(ctx, tx, r.ID); err != nil {
				return err
			}
			return removeIfLast(ctx, tx)
		})
	})
}

// removeIfLast drops the schema twinspan when no link is left in the database, unless
// a cutover has left its gate.
func removeIfLast(ctx context.Context, tx pgx.Tx) error {
	var last bool
	err := tx.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM twinspan.link) AND to_regprocedure('twinspan.release()') IS NULL`).Scan(&last)
	if err != nil {
		return pg.Classify(err, "count the links")
	}
	if !last {
		return nil
	}
	if err := onlyOurs(ctx, tx); err != nil {
		return err
	}
	return catalog.Remove(ctx, tx)
}

// clear empties a database of a half-made copy, but for the schema twinspan. The
// schema public is made again as a new database has it.
func clear(ctx context.Context, conn *pgx.Conn) error {
	// Each large object that is removed holds a lock to the end of its transaction.
	for left := 1; left > 0; {
		err := conn.QueryRow(ctx, `SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 500) x`).Scan(&left)
		if err != nil {
			return pg.Classify(err, "remove the large objects of the unfinished copy")
		}
	}
	_, err := conn.Exec(ctx, `DO $$
DECLARE r record;
BEGIN
    FOR r IN SELECT evtname FROM pg_event_trigger WHERE evtname NOT LIKE 'twinspan\_%' LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', r.evtname);
    END LOOP;
    FOR r IN SELECT nspname FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'twinspan')
                AND nspname NOT LIKE 'pg\_temp%' AND nspname NOT LIKE 'pg\_toast%' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', r.nspname);
    END LOOP;
    FOR r IN SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' LOOP
        EXECUTE format('DROP EXTENSION IF EXISTS %I CASCADE', r.extname);
    END LOOP;
    IF current_setting('server_version_num')::int >= 150000 THEN
        CREATE SCHEMA public AUTHORIZATION pg_database_owner;
        GRANT USAGE ON SCHEMA public TO PUBLIC;
    ELSE
        CREATE SCHEMA public;
        GRANT ALL ON SCHEMA public TO PUBLIC;
    END IF;
    COMMENT ON SCHEMA public IS 'standard public schema';
END $$`)
	return pg.Classify(err, "empty the unfinished copy")
}
