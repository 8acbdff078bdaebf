package capture

import (
	"context"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// MakeSlot makes the link's slot where it is not there yet, on a side that is about
// to become the primary. It waits until every transaction that is running on the
// instance has ended (manual, "Logical Decoding", snapshot export), and holds the
// log from then on.
func (s *Source) MakeSlot(ctx context.Context) error {
	conn, err := s.DSN.Connect(ctx, s.session("slot"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, `SELECT pg_create_logical_replication_slot($1, 'pgoutput') WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, s.Object())
	if ctx.Err() != nil {
		return slotLate(ctx, context.Cause(ctx), s)
	}
	return pg.Classify(err, "create the replication slot "+s.Object())
}

// slotLate says which transaction the making of a slot has waited for.
func slotLate(ctx context.Context, cause error, s *Source) error {
	conn, err := s.DSN.Connect(context.WithoutCancel(ctx), s.session("slot"))
	if err != nil {
		return cause
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var pid int
	var database string
	err = conn.QueryRow(context.WithoutCancel(ctx), `SELECT pid, coalesce(datname, '') FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
		ORDER BY xact_start LIMIT 1`).Scan(&pid, &database)
	if err != nil {
		return cause
	}
	return problem.Wrap(cause, problem.Transient, "transaction_open", "the making of a slot waits for the transaction of server process %d in database %q", pid, database).
		WithHint("end it: SELECT pg_terminate_backend(%d)", pid)
}
