// Package demo shows a link at work on one machine: it makes two instances with
// an agent each, fills a sample database, puts it under load, links it, shows what
// happens, and compares the two sides at the end. It uses what any user has: the
// program itself, its API and SQL.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// Request says how to show it.
type Request struct {
	Dir       string        // empty for a temporary directory
	ExitAfter time.Duration // 0 runs until interrupted
	Plain     bool          // print lines, also on a terminal
	Out       io.Writer
}

const (
	database = "shop"
	linkName = "shop"
	// watched is how long the twin is shown replicating at the least.
	watched = 3 * time.Second
	// finishTimeout bounds the catching up and the comparison.
	finishTimeout = 5 * time.Minute
	// stopping bounds the end of the agents and their servers.
	stopping = 45 * time.Second
)

// demo is one demonstration.
type demo struct {
	stage   *stage
	began   time.Time
	request Request
	place   place
	a, b    *side
	load    *workload
	// finishing says that an interrupt is no reason to stop any more.
	finishing bool
}

// Run shows it until ctx ends or its time is over, and leaves nothing running.
// When ctx ends while the link replicates, the comparison is still made; before
// that, everything is stopped at once and Run returns nil. It fails when the two
// sides differ.
func Run(ctx context.Context, in Request) (err error) {
	d := &demo{request: in, began: time.Now(), stage: newStage(in)}
	if d.place, err = openPlace(in.Dir); err != nil {
		return err
	}
	// The agents live in a context of their own: they go on while the end is played
	// after an interrupt, and are stopped in order.
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	err = d.show(ctx, life)
	if ctx.Err() != nil && !d.finishing {
		d.stage.say("Interrupted")
		err = nil
	}
	if stopErr := errors.Join(d.stop(), d.place.close()); stopErr != nil {
		return errors.Join(err, stopErr)
	}
	return err
}

// show is the demonstration itself.
func (d *demo) show(ctx, life context.Context) error {
	d.stage.say("Two PostgreSQL instances with an agent each, in %s", d.place.dir)
	if err := d.start(ctx, life); err != nil {
		return err
	}
	if err := d.pair(ctx); err != nil {
		return err
	}
	if err := d.fill(ctx); err != nil {
		return err
	}
	return d.run(ctx)
}

// run is what happens under load: seeding, replicating, the end.
func (d *demo) run(ctx context.Context) error {
	load, endLoad := context.WithCancel(ctx)
	d.load = newWorkload(d.a.dsn(database), d.b.dsn(database))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.load.Run(load)
	}()
	defer func() { endLoad(); <-ended }()
	d.stage.say("A workload of %s changes %s on a: orders come in, are paid, change, and are taken back", terminal.Plural(writers, "session"), database)

	if err := d.link(ctx); err != nil {
		return err
	}
	if err := d.demonstrate(ctx); err != nil {
		return err
	}
	if err := d.watch(ctx); err != nil {
		return err
	}
	endLoad()
	<-ended
	d.finishing = true
	// What follows also happens after an interrupt; a second one ends the process.
	return d.finish(context.WithoutCancel(ctx))
}

// start makes both agents and waits until both have a server.
func (d *demo) start(ctx, life context.Context) error {
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	d.a = newSide(d.place, "a", ports[0], ports[1])
	d.b = newSide(d.place, "b", ports[2], ports[3])
	return both(func(s *side) error {
		if err := s.init(ctx); err != nil {
			return err
		}
		if err := s.serve(life); err != nil {
			return err
		}
		return s.ready(ctx)
	}, d.a, d.b)
}

// stop ends the agents, and with them their servers.
func (d *demo) stop() error {
	if d.a == nil {
		return nil
	}
	d.stage.say("Stopping the agents and their servers")
	return both(func(s *side) error { return s.stop(stopping) }, d.a, d.b)
}

func (d *demo) pair(ctx context.Context) error {
	invitation, err := d.a.client.Invite(ctx, 0)
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	if _, err := d.b.client.Join(ctx, api.JoinRequest{Token: invitation.Token}); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	d.stage.say("Peers by an invitation, as with: twinspan peer invite; twinspan peer join TOKEN")
	return nil
}

// link creates the link and follows it until it replicates.
func (d *demo) link(ctx context.Context) error {
	d.stage.say("Linking while the workload runs: twinspan link create %s --database %s --peer b", linkName, database)
	l, err := d.a.client.CreateLink(ctx, api.CreateLink{Name: linkName, Database: database, Peer: "b"})
	if err != nil {
		return fmt.Errorf("create the link: %w", err)
	}
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for l.Phase != api.Replicating {
		d.stage.seeding(l, d.load.rate())
		if l.Phase == api.Broken || l.Phase == api.Suspended {
			return broken(l)
		}
		if err := d.a.wait(ctx, tick.C); err != nil {
			return err
		}
		if l, err = d.a.client.Link(ctx, linkName); err != nil {
			return fmt.Errorf("look at the link: %w", err)
		}
	}
	d.stage.seeding(l, d.load.rate())
	d.stage.settle()
	d.stage.say("Replicating %s after the link was created: %s tables, %s copied under load",
		terminal.Duration(time.Since(began).Seconds()), fmt.Sprint(l.Seeding.TablesTotal), terminal.Size(l.Seeding.BytesTotal))
	return nil
}

// broken turns a link that stopped into the error that stopped it.
func broken(l api.Link) error {
	for _, p := range l.Problems {
		if p.Severity == api.Blocks {
			return problem.New(problem.Internal, p.Code, "the link stopped: %s", p.Title).On(p.Subject).WithHint("%s", p.Hint)
		}
	}
	return problem.New(problem.Internal, "link_"+string(l.Phase), "the link is %s", l.Phase)
}

// watch shows the link at work until the time is over.
func (d *demo) watch(ctx context.Context) error {
	until := make(<-chan time.Time)
	if d.request.ExitAfter > 0 {
		until = time.After(max(watched, d.request.ExitAfter-time.Since(d.began)))
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		l, err := d.b.client.Link(ctx, linkName)
		switch {
		case ctx.Err() != nil:
			d.stage.settle()
			return nil
		case err != nil:
			return fmt.Errorf("look at the link: %w", err)
		case l.Phase == api.Broken:
			return broken(l)
		}
		d.stage.live(l, d.load.rate(), d.load.errors())
		select {
		case <-ctx.Done():
		case <-until:
			d.stage.settle()
			return nil
		case <-d.a.ended:
			return d.a.died()
		case <-d.b.ended:
			return d.b.died()
		case <-tick.C:
		}
	}
}

// finish waits for the twin and compares.
func (d *demo) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, finishTimeout, problem.New(problem.Transient, "demo_slow", "the twin did not catch up within %s", finishTimeout))
	defer cancel()
	d.stage.say("The workload has stopped after %s; waiting for the twin", terminal.Plural(int(d.load.done()), "transaction"))
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	result, err := compare(ctx, d.a.dsn(database), d.b.dsn(database))
	if err != nil {
		return err
	}
	var rows int64
	different := 0
	for _, t := range result {
		rows += t.rows
		if t.different != 0 {
			different++
			d.stage.say("  %-24s %s differ", t.name, terminal.Plural(int(t.different), "row"))
			continue
		}
		d.stage.say("  %-24s %9d rows, equal", t.name, t.rows)
	}
	if different > 0 {
		return problem.New(problem.Diverged, "demo_differs", "the two sides differ in %s", terminal.Plural(different, "table")).
			WithHint("this is a defect of Twinspan: please report it with the logs of the agents; --dir keeps them")
	}
	d.stage.say("Compared row by row: %s, %d rows, the two sides are equal", terminal.Plural(len(result), "table"), rows)
	return nil
}
