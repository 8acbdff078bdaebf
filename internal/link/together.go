package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// Several links change places as one (docs/design/0027-together.md). One agent drives them
// all; each link's failover is driven by its secondary's agent as ever, and waits at three
// points.
const (
	// MethodFailoverGo lets a link's failover go on from the point where it waits.
	MethodFailoverGo = "failover.go"
	// MethodFailoverOutcome asks the agent that drives them all what was decided.
	MethodFailoverOutcome = "failover.outcome"
)

// Together names a failover of several links.
type Together struct {
	Failover string `json:"failover"`
	Leader   string `json:"leader"` // the link in whose database, at the agent, it is decided
	Agent    string `json:"agent"`  // id of the agent that drives them all
}

// Outcome is what was decided for several links.
type Outcome string

// The outcomes.
const (
	Pending Outcome = "pending"
	Decided Outcome = "decided"
	Undone  Outcome = "undone"
)

// FailoverGoRequest asks the secondary's agent to go on.
type FailoverGoRequest struct {
	Reference
	From api.FailoverPoint `json:"from"`
}

// OutcomeRequest asks for the outcome on behalf of one of the links.
type OutcomeRequest struct {
	Reference
	Together
}

const (
	// othersPatience is how long a link whose writers are held waits for those that change
	// places with it, beside the time that their running writers have.
	othersPatience = 30 * time.Second
	// verdictPause is between two questions for the outcome.
	verdictPause = 200 * time.Millisecond
)

// BeginTogether stores that a failover of several links, of which this is one, has begun.
func (l *Link) BeginTogether(ctx context.Context, failover string) error {
	return l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.BeginTogether(ctx, conn, l.ID(), failover)
	})
}

// SettleTogether decides a failover of several links at the one that leads, unless that was
// done, and returns what was decided. At the others it stores what the leader has decided.
func (l *Link) SettleTogether(ctx context.Context, failover string, decide bool) (decided bool, err error) {
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		decided, err = catalog.SettleTogether(ctx, conn, failover, decide)
		return err
	})
	return decided, err
}

// passOn stores with the other links of this agent what was decided here for several, before this one is removed: those
// that were not told ask for it, and what nobody knows is undone.
func (l *Link) passOn(ctx context.Context) error {
	var decided []string
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		decided, err = catalog.DecidedTogether(ctx, conn, l.ID())
		return err
	})
	for _, failover := range decided {
		if err == nil {
			err = l.place.PassOn(ctx, failover)
		}
	}
	return err
}

// EndTogether forgets here a failover of several links once every one of them is over.
func (l *Link) EndTogether(ctx context.Context, failover string) error {
	return l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.EndTogether(ctx, conn, failover)
	})
}

// ProceedFailover lets a failover that waits for those of other links go on from a point.
func (l *Link) ProceedFailover(ctx context.Context, from api.FailoverPoint) error {
	if _, have := l.ownFailover(); have && l.proceed(from) == nil {
		return nil
	}
	return side.Tell(ctx, l.side, MethodFailoverGo, FailoverGoRequest{l.side.Reference(), from})
}

func (l *Link) handleFailoverGo(_ context.Context, r FailoverGoRequest) error {
	return l.proceed(r.From)
}

// proceed lets a failover that this side drives go on.
func (l *Link) proceed(from api.FailoverPoint) error {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	c := l.failovers.current
	if c == nil || c.view.State != api.FailoverRunning || c.view.Waiting != from || from == "" {
		return problem.New(problem.Conflict, "failover_not_waiting", "no failover of the link waits for others").On(l.side.Record().Name)
	}
	c.view.Waiting = ""
	close(c.points[from])
	return nil
}

// point returns a step that waits for the failovers of other links; nil when there are
// none.
func (s *switcher) point(p api.FailoverPoint) func(context.Context) error {
	if s.f.together == nil {
		return nil
	}
	return func(ctx context.Context) error {
		if p != api.PointHold { // nobody waits before that
			patience := s.f.drain() + othersPatience
			late, stop := context.WithTimeoutCause(ctx, patience, problem.New(problem.Transient, "others_late",
				"the other links that were to change places with this one did not come so far within %s", patience).WithHint("try again"))
			defer stop()
			ctx = late
		}
		s.showFailover(s.f, func(view *api.FailoverProgress) { view.Waiting = p })
		select {
		case <-s.f.points[p]:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ifTogether returns a step that only links take that change places with others.
func (s *switcher) ifTogether(do func(context.Context) error) func(context.Context) error {
	if s.f.together == nil {
		return nil
	}
	return do
}

// promise stores that this link does what is decided for all. From then on nothing undoes it
// but that.
func (s *switcher) promise(ctx context.Context) error {
	t := s.f.together
	s.failovers.mu.Lock()
	if s.f.ctx.Err() != nil {
		s.failovers.mu.Unlock()
		return context.Cause(s.f.ctx)
	}
	s.f.promised = true
	s.failovers.mu.Unlock()
	return s.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.StorePromise(ctx, conn, s.ID(), catalog.Promise{Operation: s.f.id, Failover: t.Failover, Leader: t.Leader, Agent: t.Agent})
	})
}

// verdict waits until it is known what is decided for all.
func (s *switcher) verdict(ctx context.Context) error {
	s.showFailover(s.f, func(view *api.FailoverProgress) { view.Waiting = api.PointDecision })
	decided, err := s.awaitVerdict(ctx, *s.f.together, s.f.points[api.PointDecision])
	if err == nil && !decided {
		err = errOthers
	}
	return err
}

// errOthers is why a link that could have changed places did not.
var errOthers = problem.New(problem.Transient, "others_undone", "not every one of the links that were to change places together could").
	WithHint("the problem of the other link says why")

// awaitVerdict asks what was decided until that is known, at once when told is closed.
func (l *Link) awaitVerdict(ctx context.Context, t Together, told <-chan struct{}) (decided bool, err error) {
	pause := time.NewTimer(verdictPause)
	defer pause.Stop()
	for {
		select {
		case <-told:
			told = nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-pause.C:
		}
		switch outcome, err := l.askOutcome(ctx, t); {
		case err != nil && ctx.Err() == nil:
			l.side.Warn("together", problem.New(problem.Transient, "others_unknown",
				"what was decided for the links that change places with this one is not known: %v", err).On(l.Name()).
				WithHint("it is asked again until the agent that drives them answers; if that is lost for good: twinspan link failover %s --type forced --insist, which the other links do not follow", l.Name()))
		case err == nil && outcome != Pending:
			l.side.Warn("together", nil)
			return outcome == Decided, nil
		case err == nil:
			l.side.Warn("together", nil)
		}
		pause.Reset(verdictPause)
	}
}

// askOutcome asks the agent that drives several links, which is this side's or the other's.
func (l *Link) askOutcome(ctx context.Context, t Together) (outcome Outcome, err error) {
	if t.Agent == l.place.Agent {
		return l.place.Outcome(ctx, l, t)
	}
	ctx, stop := context.WithTimeout(ctx, contactPatience)
	defer stop()
	return side.Call[Outcome](ctx, l.side, MethodFailoverOutcome, OutcomeRequest{l.side.Reference(), t})
}

// settle makes sure that the record says what became of a failover, before that is undone
// for not having come to its end.
func (l *Link) settle(ctx context.Context, f *failover) error {
	stored := context.WithoutCancel(ctx)
	if err := l.side.Ascertain(stored); err != nil || l.Role() == role.Primary {
		return err
	}
	var p *catalog.Promise
	r := l.side.Record()
	err := l.side.Session.Do(stored, func(ctx context.Context, conn *pgx.Conn) (err error) {
		p, err = catalog.PromiseOf(ctx, conn, r.ID, r.Operation)
		return err
	})
	if err != nil || p == nil {
		return err
	}
	decided, err := l.awaitVerdict(ctx, Together{Failover: p.Failover, Leader: p.Leader, Agent: p.Agent}, nil)
	if err != nil || !decided {
		return err
	}
	var held time.Time
	if f != nil {
		held = f.held
	}
	if err := l.decide(ctx, r.Operation, held); err != nil {
		return err
	}
	return l.side.Ascertain(stored)
}
