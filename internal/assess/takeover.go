package assess

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Takeover lists what keeps the server of a twin from being the primary after a
// planned change of places: it blocks that, and not the link. slot is the name of the
// link's own slot, which may be there already; "" where there is none.
func Takeover(ctx context.Context, conn *pgx.Conn, slot string) ([]Finding, error) {
	var f findings
	var level, user string
	var slots, used, senders, sending, open, limit int
	var recovering, super bool
	err := conn.QueryRow(ctx, `SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_replication_slots WHERE slot_name <> $1)::int, current_setting('max_wal_senders')::int,
		(SELECT count(*) FROM pg_stat_replication)::int, pg_is_in_recovery(), current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int, current_setting('max_connections')::int`, slot).
		Scan(&level, &slots, &used, &senders, &sending, &recovering, &user, &super, &open, &limit)
	if err != nil {
		return nil, pg.Classify(err, "look at the server")
	}
	f.blocksIf(recovering, "secondary_in_recovery", "server", "the secondary's server is a standby: nothing can be written to it", "connect to its primary")
	f.blocksIf(!super, "not_superuser", user, "the role of the secondary's agent is no superuser: it can neither publish nor hold writers", superuserRemedy(user))
	f.blocksIf(level != "logical", "wal_level_too_low", "wal_level", "the secondary's server cannot be primary: wal_level is "+level+"; a forced failover is possible, but afterwards the other side has to be compared and repaired",
		"on the secondary: ALTER SYSTEM SET wal_level = 'logical'; then restart the server")
	f.blocksIf(used >= slots, "slots_used_up", "max_replication_slots", fmt.Sprintf("%d of %d replication slots of the secondary's server are in use; to be primary it needs one", used, slots),
		fmt.Sprintf("on the secondary: ALTER SYSTEM SET max_replication_slots = %d; then restart the server; or drop slots that nobody needs", slots+10))
	f.blocksIf(sending >= senders, "senders_used_up", "max_wal_senders", fmt.Sprintf("%d of %d WAL senders of the secondary's server are in use; to be primary it needs one", sending, senders),
		fmt.Sprintf("on the secondary: ALTER SYSTEM SET max_wal_senders = %d; then restart the server", senders+10))
	f.warnsIf(limit-open < connectionsNeeded, "connections_short", "max_connections",
		fmt.Sprintf("%d of %d sessions of the secondary's server are open; its agent takes up to %d, and the applications come too", open, limit, connectionsNeeded),
		fmt.Sprintf("on the secondary: ALTER SYSTEM SET max_connections = %d; then restart the server; or end sessions that nobody uses", limit+20))
	return f, nil
}

// judgeTakeover looks at what a change of places will need: a twin without it is a
// twin all the same, so it has to be accepted, not mended.
func (l *secondaryLook) judgeTakeover(ctx context.Context) error {
	list, err := Takeover(ctx, l.conn, "")
	if err != nil {
		return err
	}
	for _, f := range list {
		if f.Severity == problem.Blocks {
			f.Severity = problem.Warns
		}
		if !l.found.has(f.Code) { // what a link itself needs has been said
			l.found = append(l.found, f)
		}
	}
	return nil
}
