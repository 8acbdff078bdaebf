package link

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	confirmInterval = 200 * time.Millisecond
	// idleConfirm is how often a position without transactions is confirmed: the log
	// of other databases, which this one holds back.
	idleConfirm = 2 * time.Second
)

// promptly says whether commits on the primary wait for what is confirmed here.
func (l *Link) promptly() bool { return l.snapshot().Mode == string(api.Sync) }

// confirmLoop tells the primary what is durable, whenever that grew, and the link
// whether it is in step. In mode sync it does so after each commit rather than from
// time to time, in a session of its own, for the link's may be busy.
func (l *Link) confirmLoop(ctx context.Context, s *peer.Stream, in *receiver, applier *apply.Applier) error {
	tick := time.NewTicker(confirmInterval)
	defer tick.Stop()
	own := &control{dsn: l.dsn, name: l.Name(), purpose: "confirm"}
	defer own.close()
	c := &confirmer{link: l, stream: s, in: in}
	for {
		committed := in.commits
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
		through := &l.control
		if prompt {
			through = own
		}
		status := applier.Status()
		if err := c.confirm(ctx, through, status, prompt); err != nil {
			return err
		}
		if err := l.judge(ctx, status); err != nil {
			return err
		}
	}
}

// confirmer is what a stream's confirmations have come to.
type confirmer struct {
	link   *Link
	stream *peer.Stream
	in     *receiver

	confirmed    lsn.LSN
	transactions int64
	asked        time.Time
}

// confirm tells the primary what is durable if that may have grown.
func (c *confirmer) confirm(ctx context.Context, through *control, status apply.Status, prompt bool) error {
	grown := status.Transactions != c.transactions
	moved := status.Applied > c.confirmed && (prompt || time.Since(c.asked) > idleConfirm)
	if !grown && !moved {
		return nil
	}
	c.transactions, c.asked = status.Transactions, time.Now()
	durable, err := c.link.positionBy(ctx, through)
	if err != nil {
		return err
	}
	applied := max(status.Applied, durable)
	message := wire.Confirm{Received: max(lsn.LSN(c.in.received.Load()), applied), Applied: applied, Durable: durable}
	c.confirmed = durable
	return c.stream.WriteFrame(wire.FrameConfirm, message.Append(nil))
}
