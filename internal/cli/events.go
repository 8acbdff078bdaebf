package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const (
	// eventsShown is how many events are shown where nobody says.
	eventsShown = 100
	// eventsPage is how many are asked for at once, eventsWait how many seconds one that
	// follows waits for the next.
	eventsPage = 1000
	eventsWait = 30
)

// eventsLong is the help of the command, with the kinds as the API has them.
func eventsLong() string {
	var kinds strings.Builder
	for _, k := range api.EventKinds() {
		fmt.Fprintf(&kinds, "  %-10s %s\n", k.Kind, strings.Join(k.Actions, ", "))
	}
	return `Show what happened, as this agent saw it: changes of role and phase, problems that began
and ended, changes of places with their steps, who asked for what, peers, backups, copies. Without --since
the last ` + fmt.Sprint(eventsShown) + ` that fit are shown, the oldest first; --follow goes on with those that come, until interrupted.
With -o json and --follow each event is an object on a line of its own.

The agent keeps about 16 MB of events in its directory; the oldest go first. A kind, or a
kind with an action, as problem.began, narrows --kind and the hooks of twinspan.toml:

` + strings.TrimSuffix(kinds.String(), "\n")
}

func (a *app) eventsCommand() *cobra.Command {
	var q api.EventQuery
	var since string
	var follow bool
	cmd := &cobra.Command{
		Use:     "events",
		Short:   "Show what happened",
		Long:    eventsLong(),
		GroupID: "links",
		Example: `  twinspan events
  twinspan events --link sales --since 24h
  twinspan events --kind role,failover.done,problem --follow
  twinspan events --since 2026-11-30T04:00:00Z -o json`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			at, err := sinceWhen(since, time.Now())
			if err != nil {
				return err
			}
			q.Since = at
			return a.events(ctx, c, q, follow)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Link, "link", "", "events of the link of this `name`")
	flags.StringVar(&q.Peer, "peer", "", "events of the peer of this `name`")
	flags.StringSliceVar(&q.Kinds, "kind", nil, "events of these `kinds`")
	flags.StringVar(&since, "since", "", "events since a `time`, as 1h30m, 2026-11-30 or 2026-11-30T04:00:00Z")
	flags.Int64Var(&q.After, "after", 0, "events behind the one of this `number`")
	flags.IntVar(&q.Limit, "limit", 0, "the most `events`, the newest of those that fit")
	flags.BoolVar(&follow, "follow", false, "go on with events that come, until interrupted")
	a.completeFlag(cmd, "link", a.completeLinks)
	return cmd
}

// sinceWhen reads a time, or how long ago it was.
func sinceWhen(text string, now time.Time) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return new(now.Add(-ago)), nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			return &at, nil
		}
	}
	return nil, problem.New(problem.Invalid, "parameters_invalid", "%q is neither a time nor a duration", text).
		WithHint("write --since 90m, or --since 2026-11-30T04:00:00Z; times without a zone are UTC")
}

// events shows the events that a query asks for.
func (a *app) events(ctx context.Context, c *client.Client, q api.EventQuery, follow bool) error {
	all, next, err := pastEvents(ctx, c, q)
	switch {
	case follow && ctx.Err() != nil:
		return nil // as it ends later
	case err != nil:
		return err
	}
	if !follow {
		return a.answer(all, func(w io.Writer) {
			for _, e := range all {
				fmt.Fprintln(w, eventLine(e))
			}
		})
	}
	if err := a.printEvents(all); err != nil {
		return err
	}
	q.After = next
	return a.followEvents(ctx, c, q)
}

// pastEvents collects the events that are there, and the number behind which others come.
func pastEvents(ctx context.Context, c *client.Client, q api.EventQuery) (all []api.Event, next int64, err error) {
	all = []api.Event{}
	limit := q.Limit
	if limit == 0 && q.Since == nil && q.After == 0 {
		limit = eventsShown
	}
	if 0 < limit && limit <= eventsPage {
		q.Newest, q.Limit = true, limit
		page, err := c.Events(ctx, q)
		return append(all, page.Events...), page.Next, err
	}
	q.Limit = eventsPage
	for {
		page, err := c.Events(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, page.Events...)
		if q.After = page.Next; !page.More {
			if limit > 0 {
				all = all[max(0, len(all)-limit):]
			}
			return all, page.Next, nil
		}
	}
}

// followEvents shows events as they come. An agent that goes away is waited for.
func (a *app) followEvents(ctx context.Context, c *client.Client, q api.EventQuery) error {
	q.Newest, q.Limit, q.Wait, q.Since = false, eventsPage, eventsWait, nil
	for ctx.Err() == nil {
		page, err := c.Events(ctx, q)
		var sent *api.Error
		switch {
		case ctx.Err() != nil:
		case err == nil && page.Last < q.After:
			a.say("the agent's record of events began anew")
			q.After = 0
		case err == nil:
			if q.After > 0 && page.First > q.After+1 {
				a.say("%d events are not kept any more", page.First-q.After-1)
			}
			q.After = page.Next
			if err := a.printEvents(page.Events); err != nil {
				return err
			}
			continue
		case errors.As(err, &sent) && sent.Kind == string(problem.Transient):
			select {
			case <-ctx.Done():
			case <-time.After(a.deps.Poll):
			}
		default:
			return err
		}
	}
	return nil
}

// printEvents prints events on lines: objects, or words.
func (a *app) printEvents(list []api.Event) error {
	for _, e := range list {
		line := eventLine(e)
		if a.flags.output == "json" {
			a.answered = true
			text, err := json.Marshal(e)
			if err != nil {
				return problem.Wrap(err, problem.Internal, "internal", "print an event")
			}
			line = string(text)
		}
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return problem.Wrap(err, problem.Cancelled, "output_closed", "print an event")
		}
	}
	return nil
}

// eventLine tells an event on one line.
func eventLine(e api.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-20s ", e.At.UTC().Format("2006-01-02 15:04:05.000"), string(e.Kind)+"."+e.Action)
	switch {
	case e.Link != "":
		fmt.Fprintf(&b, "%s: ", e.Link)
	case e.Peer != "":
		fmt.Fprintf(&b, "%s: ", e.Peer)
	case e.Database != "":
		fmt.Fprintf(&b, "%s: ", e.Database)
	}
	if e.Code != "" && e.Kind != api.EventOperation {
		fmt.Fprintf(&b, "[%s] ", e.Code)
	}
	b.WriteString(e.Text)
	if e.Seconds != nil && e.Kind != api.EventHook {
		fmt.Fprintf(&b, " (%s)", terminal.Duration(*e.Seconds))
	}
	if e.By.Kind == api.ByOperator {
		fmt.Fprintf(&b, " by %s", actor(e.By))
		if e.Details != "" {
			fmt.Fprintf(&b, " %s", e.Details)
		}
	}
	return b.String()
}

func actor(by api.Actor) string {
	if by.Via == "socket" {
		return "somebody at the agent's socket"
	}
	return fmt.Sprintf("token %s (%s) from %s", by.Name, by.Role, by.Address)
}
