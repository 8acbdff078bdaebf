package capture

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// slotPatience is how long the making of a slot waits for the transactions of the
	// instance.
	slotPatience = 25 * time.Second
	// lookPatience is how long it looks afterwards for who they are.
	lookPatience = 5 * time.Second
)

// MakeSlot makes the link's slot where it is not there yet, on a side that is about
// to become the primary. It waits until every transaction that is running on the
// instance has ended (manual, "Logical Decoding", snapshot export), and holds the
// log from then on. When they have not ended in time, the error names one of them.
func (s *Source) MakeSlot(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, slotPatience, problem.New(problem.Transient, "timeout", "the replication slot %s was not made within %s", s.Object(), slotPatience))
	defer stop()
	session := s.session("slot")
	// It waits for transactions of whatever database, and nobody waits for it.
	delete(session.Settings, "lock_timeout")
	conn, err := s.DSN.Connect(ctx, session)
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

// slotLate says which transactions the making of a slot has waited for: those that
// have a number in any database of the instance, prepared ones first.
func slotLate(ctx context.Context, cause error, s *Source) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), lookPatience)
	defer stop()
	conn, err := s.DSN.Connect(ctx, s.session("slot"))
	if err != nil {
		return cause
	}
	defer conn.Close(context.WithoutCancel(ctx))
	list, err := pg.Writing(ctx, conn)
	if p := pg.Waited("the replication slot "+s.Object()+" cannot be made", list); err == nil && p != nil {
		return p
	}
	return cause
}
