package link

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

const (
	// forcePatience is how long a forced failover waits for what it needs of this
	// server.
	forcePatience = time.Minute
	// lookPatience is how long it looks for a primary that may be there after all.
	lookPatience = 3 * time.Second
)

// force makes this side the primary, whatever the other one is.
func (l *Link) force(ctx context.Context, request api.FailoverRequest) (api.FailoverProgress, error) {
	if err := l.side.Ascertain(ctx); err != nil {
		return api.FailoverProgress{}, err
	}
	mine := l.side.Record()
	if _, err := role.Step(side.State(mine), role.Force); err != nil {
		return api.FailoverProgress{}, noForce(mine)
	}
	touched, err := l.touched(ctx, mine)
	if err != nil {
		return api.FailoverProgress{}, err
	}
	loss := l.loss(ctx, mine)
	switch {
	case touched && !request.Insist:
		return api.FailoverProgress{}, rejoinBegun(mine)
	case loss.PrimarySeen && !request.Insist:
		return api.FailoverProgress{}, primaryHealthy(mine.Name)
	case !request.AcceptDataLoss:
		return api.FailoverProgress{Link: mine.Name, Type: api.Forced, State: api.FailoverUndone, Steps: []api.FailoverStep{}, Loss: &loss}, problem.New(problem.Conflict, "data_loss_not_accepted",
			"a forced failover of link %s leaves behind what the secondary does not have: %s", mine.Name, describeLoss(loss)).On(mine.Name).
			WithHint("if that is to be: twinspan link failover %s --type forced --accept-data-loss", mine.Name)
	}
	f := newFailover(mine.Name, request)
	f.view.Loss = &loss
	l.failovers.mu.Lock()
	if c := l.failovers.current; c != nil {
		c.stop(problem.New(problem.Cancelled, "failover_forced", "a forced failover took its place"))
	}
	l.failovers.current = f
	l.failovers.mu.Unlock()
	err = l.forceNow(ctx, f, mine, touched)
	l.endFailover(f, err)
	view, _ := l.ownFailover()
	return view, err
}

func rejoinBegun(r catalog.Link) error {
	return problem.New(problem.Conflict, "rejoin_begun", "a rejoin of this side of link %s has begun: its database is neither what it was nor what the other side's is", r.Name).On(r.Name).
		WithHint("when agent %[2]s is back: twinspan link rejoin %[1]s goes on; if it is lost for good: twinspan link failover %[1]s --type forced --insist", r.Name, r.Peer)
}

func primaryHealthy(name string) error {
	return problem.New(problem.Conflict, "primary_healthy", "the primary of link %s is there and works: a planned failover loses nothing", name).On(name).
		WithHint("twinspan link failover %[1]s; to force it all the same: twinspan link failover %[1]s --type forced --insist", name)
}

// touched says whether a rejoin of this side has begun and not ended.
func (l *Link) touched(ctx context.Context, mine catalog.Link) (touched bool, err error) {
	if !mine.Diverged {
		return false, nil
	}
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		touched, err = lost.Touched(ctx, conn, mine.ID)
		return err
	})
	return touched, err
}

// noForce says why a side cannot be made primary by force.
func noForce(r catalog.Link) error {
	s := side.State(r)
	p := problem.New(problem.Conflict, "phase_refuses", "this side of link %s is %s, in phase %s: it cannot be made primary by force", r.Name, r.Role, r.Phase).On(r.Name)
	switch {
	case s.Role == role.Primary && s.Writable():
		return p.WithHint("it is the primary; a forced failover is for the secondary's agent, %s", r.Peer)
	case !s.Seeded:
		return p.WithHint("its copy is not whole; only a whole one can take over")
	}
	return p.WithHint("twinspan link show %s says how it stands", r.Name)
}

// loss estimates what a forced failover would leave behind.
func (l *Link) loss(ctx context.Context, mine catalog.Link) api.Loss {
	ctx, stop := context.WithTimeout(ctx, lookPatience)
	defer stop()
	other, err := side.Call[Standing](ctx, l.side, MethodState, side.ReferenceOf(mine))
	if role.Role(mine.Role) == role.Secondary {
		l.stand()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	report, answer := l.live.report, l.live.answer
	loss := api.Loss{Applied: positionText(report.Applied), PrimarySeen: err == nil && other.State.Writable() && !mine.Diverged}
	if l.live.heard.IsZero() {
		return loss
	}
	written := max(answer.Written, report.Received)
	at, bytes, seconds := l.live.heard.UTC(), report.Applied.Behind(written), time.Since(l.live.heard).Seconds()
	if report.Lag != nil {
		seconds = max(seconds, *report.Lag)
	}
	loss.Written, loss.HeardAt, loss.Bytes, loss.Seconds = positionText(written), &at, &bytes, &seconds
	return loss
}

func describeLoss(loss api.Loss) string {
	if loss.HeardAt == nil {
		return "nothing was heard of the primary since the agent was started, so it is not known how much"
	}
	return fmt.Sprintf("up to %s of log as last heard of, %.0f seconds ago, and what was written since", size(*loss.Bytes), time.Since(*loss.HeardAt).Seconds())
}

// forceNow does it.
func (l *Link) forceNow(ctx context.Context, f *failover, mine catalog.Link, touched bool) error {
	ctx, stop := context.WithTimeoutCause(ctx, forcePatience, problem.New(problem.Transient, "failover_late", "the forced failover was not done within %s", forcePatience).WithHint("try again"))
	defer stop()
	if role.Role(mine.Role) == role.Primary {
		l.failoverStep(f, "letting writers in")
		return l.resurrect(ctx, f, mine)
	}
	// What has arrived and is being applied is not waited for: nobody says that it is
	// whole. But nothing may be applied while this side becomes primary.
	l.failoverStep(f, "ending the stream")
	release, err := l.quiet(ctx)
	if err != nil {
		return err
	}
	defer release()
	l.failoverStep(f, "preparing this side")
	unheld, err := l.furnishByForce(ctx)
	if err != nil {
		return err
	}
	l.failoverStep(f, "moving sequences ahead")
	if err := l.sequences.Advance(ctx); err != nil {
		return err
	}
	parted, err := apply.Settle(ctx, l.dsn, mine.Name, catalog.ObjectName(mine.ID))
	if mine.Diverged && pg.SQLState(err) == "42704" {
		err = nil // undefined_object: a former primary that has never followed anybody
	}
	if err != nil {
		return err
	}
	if err := l.putBack(ctx); err != nil {
		return err
	}
	start, system, err := l.endOfOwnLog(ctx)
	if err != nil {
		return err
	}
	start, parted = partedAt(mine, touched, start, parted)
	l.failoverStep(f, "deciding")
	err = l.side.Turn(ctx, func(r *catalog.Link) error {
		next, err := role.Step(side.State(*r), role.Force)
		if err != nil {
			return err
		}
		if r.Epoch != mine.Epoch || r.Role != mine.Role {
			return errMovedOn
		}
		side.Put(next, r)
		r.StartLSN, r.SystemID, r.Parted, r.PrimaryAddress, r.Suspended = start, system, parted, l.place.Address, false
		r.LastFailover = &catalog.Failover{Type: forced, At: time.Now().UTC()}
		r.Problem = problem.New(problem.Diverged, "twin_diverged", "this side was made primary by force; the former primary may hold transactions that it does not have").
			WithHint("when agent %[2]s is back: twinspan link lost %[1]s, then twinspan link rejoin %[1]s", mine.Name, mine.Peer)
		if unheld != nil {
			r.Problem.Text += "; and nothing holds this side's log for it: " + unheld.Error()
			r.Problem.Hint = fmt.Sprintf("%[3]s; then, when agent %[2]s is back: twinspan link lost %[1]s, and twinspan link rejoin %[1]s, which compares the two sides", mine.Name, mine.Peer, unheld.Hint)
		}
		return nil
	}, func(ctx context.Context, tx pgx.Tx) error {
		if err := l.writableByDefault(ctx, tx); err != nil || !mine.Diverged {
			return err
		}
		return lost.TakeBack(ctx, tx, mine.ID)
	})
	text := fmt.Sprintf("agent %s is fenced when it hears of it; then twinspan link lost %s shows what was left behind", mine.Peer, mine.Name)
	if unheld != nil {
		text += fmt.Sprintf("; the rejoin has to compare the two sides, for nothing holds this side's log: %s (%s)", unheld.Error(), unheld.Hint)
	}
	return l.forcedEnd(ctx, f, err, text)
}

// partedAt says where the histories part: from where on this side's log, which ends at
// end, holds what the other side lacks, and up to where this side has the log of the
// one that was primary, of which it has applied a part.
//
// A former primary that takes over again, and was not mended, has nothing of the other
// side's log, and what it had committed before it was fenced the other side still
// lacks: the two have parted where they did when it was left behind. After a rejoin
// that has begun nobody can say, which is position 0.
func partedAt(mine catalog.Link, touched bool, end, applied lsn.LSN) (start, parted lsn.LSN) {
	switch {
	case !mine.Diverged:
		return end, max(applied, mine.StartLSN)
	case touched || mine.Parted == 0:
		return end, 0
	}
	return mine.Parted, mine.StartLSN
}

// resurrect lets writers in on a fenced primary that the other side left alone.
func (l *Link) resurrect(ctx context.Context, f *failover, mine catalog.Link) error {
	err := l.side.Turn(ctx, func(r *catalog.Link) error {
		if err := stepFrom(r, mine, role.Force); err != nil {
			return err
		}
		r.LastFailover = &catalog.Failover{Type: forced, At: time.Now().UTC()}
		return nil
	}, l.writableByDefault)
	return l.forcedEnd(ctx, f, err, fmt.Sprintf("agent %s follows again when it is back, unless it had become primary", mine.Peer))
}

// forcedEnd finds out whether the deciding commit was made, and opens the gate.
func (l *Link) forcedEnd(ctx context.Context, f *failover, err error, text string) error {
	if unknown := l.side.Ascertain(ctx); unknown != nil {
		return unknown
	}
	r := l.side.Record()
	if !side.State(r).Writable() {
		if err == nil {
			err = errMovedOn
		}
		return err
	}
	err = l.side.Session.Do(ctx, l.agree)
	l.showFailover(f, func(view *api.FailoverProgress) {
		view.Primary, view.Epoch, view.Text = l.place.AgentName, r.Epoch, text
	})
	return err
}

// quiet ends the link's work and keeps it from beginning anew until release is
// called.
func (l *Link) quiet(ctx context.Context) (release func(), err error) {
	l.setQuiet(true)
	ended := make(chan struct{})
	go func() {
		l.atWork.Lock()
		close(ended)
	}()
	release = func() {
		l.setQuiet(false)
		<-ended
		l.atWork.Unlock()
	}
	select {
	case <-ended:
		return release, nil
	case <-ctx.Done():
		go release()
		return nil, context.Cause(ctx)
	}
}

func (l *Link) setQuiet(quiet bool) {
	l.mu.Lock()
	l.quieted = quiet
	l.mu.Unlock()
	l.side.Announce()
}
