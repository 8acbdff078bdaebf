package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

func (a *app) linkWatch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [NAME]",
		Short: "Watch one link, or all, until interrupted",
		Long: `Show a link, or all of them, once a second: on a terminal in place, elsewhere a line
when something changes. With -o json every look prints one object on one line. Ends by
an interrupt, and by itself when the link that it watches is deleted.`,
		Example: `  twinspan link watch
  twinspan link watch sales -o json | jq --unbuffered .lag.bytes`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			return a.watch(ctx, c, strings.Join(args, ""))
		}),
	}
}

// watch looks again and again. An agent that goes away is waited for: somebody
// who watches wants to see it come back.
func (a *app) watch(ctx context.Context, c *client.Client, name string) error {
	show := a.watcher()
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	for first := true; ; first = false {
		links, err := look(ctx, c, name)
		var sent *api.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if err := show(links); err != nil {
				return err
			}
		case first || !errors.As(err, &sent):
			return err
		case sent.Kind == string(problem.NotFound):
			a.say("link %s is deleted", name)
			return nil
		case sent.Kind != string(problem.Transient):
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func look(ctx context.Context, c *client.Client, name string) ([]api.Link, error) {
	if name == "" {
		return c.Links(ctx)
	}
	l, err := c.Link(ctx, name)
	return []api.Link{l}, err
}

// watcher returns what shows one look: JSON lines, a table in place, or lines.
func (a *app) watcher() func([]api.Link) error {
	if a.flags.output == "json" {
		return func(links []api.Link) error {
			a.answered = true
			for _, l := range links {
				text, err := json.Marshal(l)
				if err != nil {
					return problem.Wrap(err, problem.Internal, "internal", "print the link")
				}
				if _, err := fmt.Fprintf(a.out, "%s\n", text); err != nil {
					return problem.Wrap(err, problem.Cancelled, "output_closed", "print the link")
				}
			}
			return nil
		}
	}
	if s := terminal.Of(a.out); s != nil {
		return func(links []api.Link) error {
			s.Draw(watchBlock(links, time.Now()))
			return nil
		}
	}
	last := map[string]api.Link{}
	return func(links []api.Link) error {
		for _, l := range links {
			if before, known := last[l.Name]; !known || changed(before, l) {
				if _, err := fmt.Fprintln(a.out, progressLine(l)); err != nil {
					return problem.Wrap(err, problem.Cancelled, "output_closed", "print the link")
				}
			}
			last[l.Name] = l
		}
		return nil
	}
}

// watchBlock is the table of the links, below it the copies and other steps under way and
// what is wrong.
func watchBlock(links []api.Link, now time.Time) []string {
	var rows [][]string
	var below []string
	for _, l := range links {
		rows = append(rows, linkRow(l))
		if l.Phase == api.Seeding {
			below = append(below, progressBlock(l)...)
			continue
		}
		if l.Step != "" {
			below = append(below, l.Name+": "+state(l))
		}
		for _, p := range l.Problems {
			below = append(below, fmt.Sprintf("%s: [%s] %s", l.Name, p.Code, p.Title))
			if p.Hint != "" {
				below = append(below, "  hint: "+p.Hint)
			}
		}
	}
	var b strings.Builder
	terminal.Table(&b, linkTitles(), rows)
	block := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(below) > 0 {
		block = append(append(block, ""), below...)
	}
	return append(block, "", now.Format("15:04:05")+"  (Ctrl-C ends the watching)")
}
