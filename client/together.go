package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/api"
)

// FailoverTogether has several links change places as one: all are prepared before
// writers of the first are held, and everything of all is applied before the first is
// decided. Until then whatever stops one of them undoes all, and so does the end of
// ctx; from then on each decides by itself, and one that is interrupted in that moment
// alone stays as it was. It returns how each ended, by the order of the names; watch,
// if not nil, is called whenever something is new. The error is that of the first link
// that did not change places.
func (c *Client) FailoverTogether(ctx context.Context, names []string, in api.FailoverRequest, watch func([]api.FailoverProgress)) ([]api.FailoverProgress, error) {
	in.Together = true
	all := make([]api.FailoverProgress, len(names))
	for i, name := range names {
		var err error
		if all[i], err = c.Failover(ctx, name, in); err != nil {
			c.giveUp(ctx, names[:i])
			return all[:i], fmt.Errorf("link %s: %w", name, err)
		}
	}
	for _, point := range []api.FailoverPoint{api.PointHold, api.PointDecision, ""} {
		err := c.gather(ctx, names, all, point, watch)
		if err != nil && point != "" {
			c.giveUp(ctx, names)
			err = errors.Join(err, c.gather(context.WithoutCancel(ctx), names, all, "", watch))
		}
		if err != nil {
			return all, err
		}
		for i := range names {
			if point == "" {
				continue
			}
			if _, err := c.ProceedFailover(ctx, names[i], api.FailoverProceed{To: point}); err != nil {
				return all, fmt.Errorf("link %s: %w", names[i], err)
			}
		}
	}
	return all, nil
}

// together is how often links that change places together are looked at: their
// writers wait.
const together = 20 * time.Millisecond

// gather waits until all wait at a point, or, for none, are over.
func (c *Client) gather(ctx context.Context, names []string, all []api.FailoverProgress, point api.FailoverPoint, watch func([]api.FailoverProgress)) error {
	tick := time.NewTicker(together)
	defer tick.Stop()
	for {
		there := 0
		for i, name := range names {
			if all[i].State == api.FailoverRunning {
				now, err := c.FailoverProgress(ctx, name)
				if err != nil {
					return fmt.Errorf("link %s: %w", name, err)
				}
				all[i] = now
			}
			switch {
			case all[i].State == api.FailoverUndone:
				if p := all[i].Problem; point != "" && p != nil {
					return fmt.Errorf("link %s: %w", name, &api.Error{Code: p.Code, Subject: p.Subject, Text: p.Title, Hint: p.Hint})
				}
				there++
			case all[i].State == api.FailoverDone || point != "" && all[i].Waiting == point:
				there++
			}
		}
		if watch != nil {
			watch(all)
		}
		if there == len(names) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// giveUp gives up what is not decided.
func (c *Client) giveUp(ctx context.Context, names []string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	for _, name := range names {
		_, _ = c.CancelFailover(ctx, name) // who cannot be told gives up by itself, for want of others
	}
}
