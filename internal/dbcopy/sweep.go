package dbcopy

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// drafts begins the name of every unfinished copy.
const drafts = "twinspan copy "

// Draft is the name of the unfinished copy of an agent, by both ids. It is no longer than
// a name may be.
func Draft(agent, id string) string { return drafts + agent + " " + short(id) }

func short(id string) string {
	id = strings.ReplaceAll(id, "-", "")
	return id[:min(8, len(id))]
}

// IsDraft says whether a database is an unfinished copy, of whichever agent.
func IsDraft(name string) bool { return strings.HasPrefix(name, drafts) }

// Sweep drops the unfinished copies of an agent but for those that are under way, and the
// roles that were made for them and are good for nothing else. underWay are their ids.
func Sweep(ctx context.Context, server *pg.DSN, agent string, underWay func() []string, log *slog.Logger) error {
	conn, err := server.Connect(ctx, pg.Session{Name: session + "/sweep"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, $1)`, drafts+agent+" ")
	if err != nil {
		return pg.Classify(err, "look for unfinished copies")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "look for unfinished copies")
	}
	// Asked for behind the names: a copy is known before its database is made.
	busy := map[string]bool{}
	for _, id := range underWay() {
		busy[Draft(agent, id)] = true
	}
	var failed error
	for _, name := range names {
		if busy[name] {
			continue
		}
		log.Info("an unfinished copy is dropped", "database", name)
		failed = errors.Join(failed, drop(ctx, server, name, log))
	}
	return failed
}

// drop drops an unfinished copy, if it is there, and roles that were made for it.
func drop(ctx context.Context, server *pg.DSN, draft string, log *slog.Logger) error {
	conn, err := server.Connect(ctx, pg.Session{Name: session + "/drop"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var own bool // or already its later owner's, who could have put anything into it
	err = conn.QueryRow(ctx, `SELECT pg_catalog.pg_get_userbyid(datdba) = current_user FROM pg_catalog.pg_database WHERE datname = $1`, draft).Scan(&own)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return pg.Classify(err, "look for the unfinished copy")
	}
	var roles []string
	if own {
		if roles, err = madeRoles(ctx, server.WithDatabase(draft)); err != nil {
			log.Info("roles made for an unfinished copy are not known", "database", draft, "err", err)
		}
	}
	if _, err := conn.Exec(ctx, `DROP DATABASE IF EXISTS `+sqlname.Quote(draft)+` WITH (FORCE)`); err != nil {
		return pg.Classify(err, "drop the unfinished copy")
	}
	for _, role := range roles {
		// It stays where it owns something, may something, or is in a group or is one: then
		// somebody has found a use for it.
		var used bool
		err := conn.QueryRow(ctx, `SELECT r.rolcanlogin OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE r.oid IN (m.roleid, m.member)) FROM pg_catalog.pg_roles r WHERE r.rolname = $1`, role).Scan(&used)
		if err != nil || used {
			continue // gone, or in use
		}
		if _, err := conn.Exec(ctx, `DROP ROLE `+sqlname.Quote(role)); err != nil && pg.SQLState(err) != "2BP01" && pg.SQLState(err) != "42704" {
			return pg.Classify(err, "drop a role that was made for the unfinished copy")
		}
	}
	return nil
}

// madeRoles lists the roles that an unfinished copy has noted as made for it.
func madeRoles(ctx context.Context, draft *pg.DSN) ([]string, error) {
	conn, err := draft.Connect(ctx, pg.Session{Name: session + "/drop", Apply: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, ours, err := catalog.Ours(ctx, conn); err != nil || !ours {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT name FROM twinspan.seed_entry WHERE kind = 'ROLE' ORDER BY 1`)
	if err != nil {
		return nil, pg.Classify(err, "list created roles")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, pg.Classify(err, "list created roles")
}
