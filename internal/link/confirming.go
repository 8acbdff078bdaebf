package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/syncrep"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	confirmInterval = 200 * time.Millisecond
	// idleConfirm is how often a position without transactions is confirmed: the log
	// of other databases, which this one holds back.
	idleConfirm = 2 * time.Second
	// steadyAfter is how long a stream must last that has nothing to apply for what
	// interrupted the one before to be over.
	steadyAfter = 3 * time.Second
)

// promptly says whether commits on the primary wait for what is confirmed here.
func (l *Link) promptly() bool { return l.side.Record().Mode == string(api.Sync) }

// confirmLoop tells the primary what is durable, whenever that grew, and the link
// whether it is in step. In mode sync it does so after each commit rather than from
// time to time, in a session of its own, for the link's may be busy.
func (l *Link) confirmLoop(ctx context.Context, s *peer.Stream, in *flow.Receiver, applier *apply.Applier) error {
	tick := time.NewTicker(confirmInterval)
	defer tick.Stop()
	own := &side.Session{DSN: l.dsn, Name: l.Name(), Purpose: "confirm"}
	defer own.Close()
	c := &confirmer{link: l, stream: s, in: in}
	began := time.Now()
	for {
		committed := in.Commits()
		prompt := l.promptly()
		if !prompt {
			committed = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		case <-committed:
		}
		through := l.side.Session
		if prompt {
			through = own
		}
		status := applier.Status()
		if err := c.confirm(ctx, through, own, status, prompt); err != nil {
			return err
		}
		if status.Transactions > 0 || time.Since(began) > steadyAfter {
			l.side.SetTrouble(nil) // what interrupted the stream before does not any more
		}
		if err := l.judge(ctx, status); err != nil {
			return err
		}
		if err := l.unspill(in, status); err != nil {
			return err
		}
	}
}

// atStandbys makes sure that what is durable here is so on the standbys that the
// server's commits wait for, too: a position that was confirmed must not go back when
// one of them is promoted. The applier does not wait for them itself, and where twins
// of other links are waited for it is not possible: two links could wait for each other.
// setting is synchronous_standby_names.
func (l *Link) atStandbys(ctx context.Context, own *side.Session, setting string) (bool, error) {
	if setting == "" {
		l.side.Warn("standbys_behind", nil)
		return true, nil
	}
	names, err := syncrep.Parse(setting)
	if err != nil || len(names.Others()) < len(names.Members) {
		return true, err
	}
	err = own.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			// The commit of a record, for one of nothing does not wait (xact.c,
			// RecordTransactionCommit). No timeout of a statement ends the waiting: the
			// server would then say that it has committed.
			_, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'twinspan', '')`)
			return pg.Classify(err, "wait for the server's standbys")
		})
	})
	if err == nil {
		l.side.Warn("standbys_behind", nil)
		return true, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	l.side.Warn("standbys_behind", problem.New(problem.Transient, "standbys_behind",
		"the standbys that the secondary's server waits for do not answer: nothing is confirmed to the primary").
		WithHint("bring them back, or take them out of synchronous_standby_names on the secondary"))
	return false, nil
}

// confirmer is what a stream's confirmations have come to.
type confirmer struct {
	link   *Link
	stream *peer.Stream
	in     *flow.Receiver

	confirmed    lsn.LSN
	transactions int64
	asked        time.Time
}

// confirm tells the primary what is durable if that may have grown.
func (c *confirmer) confirm(ctx context.Context, through, own *side.Session, status apply.Status, prompt bool) error {
	grown := status.Transactions != c.transactions
	moved := status.Applied > c.confirmed && (prompt || time.Since(c.asked) > idleConfirm)
	if !grown && !moved {
		return nil
	}
	c.transactions, c.asked = status.Transactions, time.Now()
	durable, standbys, err := c.link.positionBy(ctx, through)
	if err != nil {
		return err
	}
	if there, err := c.link.atStandbys(ctx, own, standbys); err != nil || !there {
		c.transactions = -1 // ask again
		return err
	}
	applied := max(status.Applied, durable)
	message := wire.Confirm{Received: max(c.in.Received(), applied), Applied: applied, Durable: durable}
	c.confirmed = durable
	return c.stream.WriteFrame(wire.FrameConfirm, message.Append(nil))
}
