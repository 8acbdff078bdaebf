package side

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
)

// ErrChanged is why work ends whose state is over.
var ErrChanged = errors.New("the link's state calls for other work")

// Service admits requests of the secondary that hold something of the primary's server, as
// long as that serves.
type Service struct {
	side *Side

	mu     sync.Mutex
	during context.Context // nil while the link does not serve
	active sync.WaitGroup  // requests
}

// NewService returns the service of a side, which does not serve yet.
func NewService(s *Side) *Service { return &Service{side: s} }

// Serve admits requests until ctx ends, and returns when none of them is left.
func (v *Service) Serve(ctx context.Context) {
	v.mu.Lock()
	v.during = ctx
	v.mu.Unlock()
	<-ctx.Done()
	v.mu.Lock()
	v.during = nil
	v.mu.Unlock()
	v.active.Wait()
}

// Enter begins a request of the secondary: it gives a context that ends when
// either the request or the serving does, and a function to call at the end.
func (v *Service) Enter(ctx context.Context, ref Reference) (context.Context, func(), error) {
	if err := v.side.SameEpoch(ref); err != nil {
		return nil, nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.during == nil {
		return nil, nil, problem.New(problem.Transient, "not_serving", "the primary's side of the link is in phase %s", v.side.Record().Phase)
	}
	v.active.Add(1)
	ctx, stop := context.WithCancelCause(ctx)
	end := context.AfterFunc(v.during, func() { stop(ErrChanged) })
	return ctx, func() {
		end()
		stop(nil)
		v.active.Done()
	}, nil
}

// Answer works a value out while the link serves, and sends it.
func (v *Service) Answer(ctx context.Context, ref Reference, s *peer.Stream, f func(context.Context) (any, error)) error {
	ctx, leave, err := v.Enter(ctx, ref)
	if err != nil {
		return err
	}
	defer leave()
	value, err := f(ctx)
	if err != nil {
		return err
	}
	return flow.Reply(s, value)
}

// AnswerRows sends the rows that a function writes while the link serves, and how many there were.
func (v *Service) AnswerRows(ctx context.Context, ref Reference, s *peer.Stream, compress bool, rows func(context.Context, io.Writer) (int64, error)) error {
	ctx, leave, err := v.Enter(ctx, ref)
	if err != nil {
		return err
	}
	defer leave()
	return flow.ReplyRows(ctx, s, compress, rows)
}
