package restore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// Twin is what a database was a twin of.
type Twin struct {
	Link     string  // its name
	Position lsn.LSN // in the primary's log: every transaction before it is in the database, and none behind
	Node     uint16  // of its replication origin, in the log of its instance
	// Of a moment of the primary: when the last transaction before the position committed there, and the position with which it was
	// applied, behind its end where nothing with changes followed. Zero where the log does not say.
	CommittedAt time.Time
	Last        lsn.LSN
}

// twinOf says whether a database was a twin of a link of the agent, of any with "", and of which state of its primary. One that was
// none, because its first copy or a repair was under way, is twin_not_whole.
func twinOf(ctx context.Context, conn *pgx.Conn, agent string) (*Twin, error) {
	if _, ours, err := catalog.Ours(ctx, conn); err != nil || !ours {
		return nil, err
	}
	links, err := catalog.Links(ctx, conn, agent)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if role.Role(l.Role) != role.Secondary {
			continue
		}
		var position string
		var before bool
		var node uint16
		err := conn.QueryRow(ctx, `SELECT p, coalesce((SELECT roident FROM pg_catalog.pg_replication_origin WHERE roname = $1), 0)::int, coalesce((SELECT max(lsn) FROM ONLY twinspan.seed_session WHERE link = $2::text::uuid) > p::pg_lsn, false)
			FROM (SELECT coalesce(pg_catalog.pg_replication_origin_progress($1, false), '0/0')::text) AS o (p)`, catalog.ObjectName(l.ID), l.ID).Scan(&position, &node, &before)
		if err != nil {
			return nil, pg.Classify(err, "read the position of the twin")
		}
		if before || !l.Seeded || l.Diverged || l.Renewing || role.Phase(l.Phase) == role.Seeding {
			return nil, problem.New(problem.Conflict, "twin_not_whole",
				"at that moment the twin of link %s was no state of its primary: its first copy or a repair was under way", l.Name).On(l.Name).
				WithHint("name another moment, or restore the primary's database on its own instance")
		}
		at, err := lsn.Parse(position)
		if err != nil {
			return nil, problem.Wrap(err, problem.Internal, "answer_unexpected", "read the position of the twin")
		}
		return &Twin{Link: l.Name, Position: at, Node: node}, nil
	}
	return nil, nil
}
