package link

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

const (
	// fitnessInterval is how often a secondary looks whether its server could be primary.
	fitnessInterval = 10 * time.Second
	// slotByForce is how long a forced failover waits for a slot. It is better to be
	// primary without: then the way back is a comparison.
	slotByForce = 10 * time.Second
)

// unfit lists what keeps this side's server from being the primary, or would spoil it.
func (l *Link) unfit(ctx context.Context) (list []api.Problem, err error) {
	var found []assess.Finding
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		found, err = assess.Takeover(ctx, conn, catalog.ObjectName(l.ID()))
		return err
	})
	for _, f := range found {
		list = append(list, api.Problem{Code: f.Code, Severity: api.Severity(f.Severity), Subject: f.Object, Title: f.Why, Hint: f.Remedy})
	}
	return list, err
}

// blocking leaves out what does not stand in the way.
func blocking(list []api.Problem) []api.Problem {
	return slices.DeleteFunc(list, func(p api.Problem) bool { return p.Severity != api.Blocks })
}

// fitnessLoop notes what keeps a twin from becoming primary while that can be mended:
// in a disaster it is too late.
func (l *Link) fitnessLoop(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last time.Time
	var noted []string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := l.side.Record()
		if time.Since(last) < fitnessInterval || r.Deleting || r.Diverged || !r.Seeded || role.Phase(r.Phase) == role.FailingOver {
			continue
		}
		last = time.Now()
		list, err := l.unfit(ctx)
		if err != nil {
			continue // the link's work meets the same server and says so
		}
		var now []string
		for _, p := range blocking(list) { // how many sessions there are changes by the second
			now = append(now, p.Code)
			l.side.Warn(p.Code, problem.New(problem.Incompatible, p.Code, "%s", p.Title).On(p.Subject).WithHint("%s", p.Hint))
		}
		for _, code := range noted {
			if !slices.Contains(now, code) {
				l.side.Warn(code, nil)
			}
		}
		noted = now
	}
}

// furnishByForce makes what a primary needs as far as the server lets. unheld says why
// there is no slot, which a side can do without: what it writes from now on is then not
// held for the other, and a rejoin compares the two.
func (l *Link) furnishByForce(ctx context.Context) (unheld *problem.Error, err error) {
	if err := l.lockFurniture(ctx); err != nil {
		return nil, err
	}
	defer l.furniture.Unlock()
	source := l.source()
	if err := source.Prepare(ctx); err != nil {
		return nil, err
	}
	list, err := l.unfit(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.Severity == api.Blocks && slices.Contains([]string{"wal_level_too_low", "slots_used_up"}, p.Code) {
			return problem.New(problem.Incompatible, p.Code, "%s", p.Title).On(p.Subject).WithHint("%s", p.Hint), nil
		}
	}
	waiting, stop := context.WithTimeoutCause(ctx, slotByForce, problem.New(problem.Transient, "timeout", "the replication slot was not made within %s", slotByForce))
	defer stop()
	err = source.MakeSlot(waiting)
	switch code := problem.CodeOf(err); {
	case err == nil || ctx.Err() != nil:
		return nil, err
	case code == "transaction_prepared" || code == "lock_not_available" || code == "timeout":
		return problem.As(err), nil
	}
	return nil, err
}
