package apply

import (
	"context"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

// takeBig takes a message that is not held in memory. Everything before it is
// applied first, then its change alone, in a piece of its own whose values go
// from the message to the socket.
func (e *engine) takeBig(ctx context.Context, big Big) error {
	msg := big.Bytes()
	e.raw = msg
	m, err := e.decoder.Decode(msg)
	if err != nil {
		return corrupt("a message that cannot be read: %v", err)
	}
	switch m.Type {
	case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
	case pgoutput.TypeMessage:
		return nil
	default:
		return corrupt("a message of type %q and %d bytes", byte(m.Type), len(msg))
	}
	r, c, err := e.prepare(ctx, m)
	if err != nil || r == nil {
		return err
	}
	if r.role == signals {
		return e.signal(ctx, r, c)
	}
	if err := e.drain(ctx); err != nil {
		return err
	}
	e.s.large = func(rest []byte) {
		// rest is a slice of msg that reaches as far as msg does in memory, so
		// capacities tell where it lies.
		big.Done(cap(msg) - cap(rest))
	}
	defer func() { e.s.large = nil }()
	// It is written by itself whatever its table's order, and settled here, for its
	// bytes go with big.
	order := r.Table.Order
	r.Table.Order = max(order, group.Strict)
	defer func() { r.Table.Order = order }()
	if !e.tx.any {
		e.tx.any = true
		e.tx.first = 0
		e.current.txs = append(e.current.txs, e.tx)
	}
	e.current.plan.Append(c)
	if err := e.piece(ctx); err != nil {
		return err
	}
	return e.settle(ctx)
}

// drain writes everything before this place: whole transactions are committed,
// the changes of the open one are in the open target transaction.
func (e *engine) drain(ctx context.Context) error {
	if err := e.finish(ctx); err != nil {
		return err
	}
	if err := e.piece(ctx); err != nil {
		return err
	}
	return e.settle(ctx)
}
