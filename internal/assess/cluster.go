package assess

import (
	"context"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// cluster says what a failover inside the primary's HA cluster would do to the link,
// where the server has standbys.
func (l *primaryLook) cluster(ctx context.Context) error {
	var standbys int
	var patroni bool
	var held string
	err := l.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_stat_replication r WHERE r.state IN ('streaming', 'catchup') AND r.application_name <> 'pg_basebackup'
			AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))::int,
		EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'Patroni%'), coalesce(current_setting('synchronized_standby_slots', true), '')`).
		Scan(&standbys, &patroni, &held)
	if err != nil || standbys == 0 {
		return pg.Classify(err, "look at the primary's standbys")
	}
	f := &l.found
	switch major := l.report.Source.Major; {
	case patroni:
		f.add(problem.Informs, "cluster_failover", "Patroni", "Patroni drops slots that it does not know, and standbys have only those that it is told of",
			"add to Patroni's configuration ignore_slots: [{type: logical, plugin: pgoutput}] now, and the link's slot to slots when it is there")
	case major < 17:
		f.add(problem.Informs, "cluster_failover", "standbys", "standbys of this version do not have the link's slot: a failover to one of them stops the link",
			"after such a failover: twinspan link resume NAME --repair")
	case held == "":
		f.add(problem.Informs, "cluster_failover", "synchronized_standby_slots", "the twin may have more than a standby that is promoted, which stops the link",
			"set sync_replication_slots = on on the standbys, and synchronized_standby_slots to their slots on this server")
	}
	return nil
}
