package member

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// updatePatience bounds the restart of one server, and the time that it takes to follow again.
const updatePatience = 5 * time.Minute

// releasePatience is how long an update waits to learn which releases the members run and have installed.
const releasePatience = 30 * time.Second

// Updated is a server that runs another release now.
type Updated struct {
	Member   string
	From, To instance.Release
	Took     time.Duration // until it followed again; of a former leader, until another member led
	Led      bool          // it led before
}

// tellPrograms tells the others which release is installed here, and writes into a state what all have told.
func (c *Cluster) tellPrograms(ctx context.Context, s *State) {
	self := c.record.Self
	here := instance.Release{}
	if !self.Witness {
		var err error
		if here, err = c.installed.Of(c.Server.Binaries); err != nil {
			s.programs = problem.As(err)
		}
	}
	found, err := c.etcd.under(ctx, c.programsKey(""))
	told := map[string]string{}
	for _, p := range found {
		told[strings.TrimPrefix(p.key, c.programsKey(""))] = string(p.value)
	}
	if err == nil && !s.Removed && here.Known() && told[self.Name] != here.String() {
		if _, err := c.etcd.write(ctx, "", "", []change{{c.programsKey(self.Name), []byte(here.String())}}); err != nil {
			c.Log.Debug("the other members are not told which release is installed here", "err", err)
		}
	}
	for i, m := range s.Members {
		s.Members[i].Installed = instance.ParseRelease(told[m.Name])
		if m.Name == self.Name {
			s.Members[i].Installed = here
		}
	}
}

// updateOrder lists the members whose servers are to be restarted: the standbys by name, then the leader. It refuses what would stop the instance, or leave
// it without a standby.
func updateOrder(s State) ([]Seen, error) {
	if s.Leader == "" {
		return nil, errLeaderless()
	}
	var order []Seen
	for _, m := range s.Members {
		switch {
		case m.Witness:
			continue
		case !m.Answers || !m.Alive:
			return nil, problem.New(problem.Conflict, "member_away", "the member %s does not answer: no server is restarted while one is away", m.Name).On(m.Name).
				WithHint("see that its agent runs, in %s; where its host is gone for good: twinspan member remove %s", m.Place, m.Name)
		case !m.Running.Known() || !m.Installed.Known():
			return nil, problem.New(problem.Transient, "member_release_unknown", "it is not known which release the member %s runs, or has installed", m.Name).On(m.Name).
				WithHint("try again in a few seconds; its agent tells, once it is of this release of twinspan")
		case m.Installed.Newer(m.Running):
			order = append(order, m)
		}
	}
	slices.SortStableFunc(order, func(a, b Seen) int {
		switch {
		case a.Name == s.Leader:
			return 1
		case b.Name == s.Leader:
			return -1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return order, nil
}

// Update restarts, one after the other, the servers that run an older release than is installed beside them: the standbys first; then another member takes
// the lead, and the former leader is restarted as its standby. It returns what was done, also with an error. What ctx interrupts goes on with the next call;
// the server that was being restarted comes back by itself.
func (c *Cluster) Update(ctx context.Context) (done []Updated, err error) {
	if !c.State().Leads {
		return nil, c.StandsBy()
	}
	if err := c.awaitReleases(ctx); err != nil {
		return nil, err
	}
	order, err := updateOrder(c.State())
	if err != nil {
		return nil, err
	}
	for _, m := range order {
		if err := c.awaitFollowing(ctx); err != nil {
			return done, err
		}
		u := Updated{Member: m.Name, From: m.Running, Led: m.Name == c.State().Leader}
		c.Log.Info("a server is restarted, for a newer release is installed", "member", m.Name, "runs", m.Running, "installed", m.Installed)
		if u.Took, err = c.updateOne(ctx, m, u.Led); err != nil {
			return done, err
		}
		if u.To, err = c.awaitRelease(ctx, m); err != nil {
			return done, err
		}
		c.Log.Info("a server runs a newer release", "member", m.Name, "runs", u.To, "took", u.Took)
		done = append(done, u)
	}
	return done, nil
}

// awaitReleases waits a while for what is not known only for a moment: a server that begins does not tell its release.
func (c *Cluster) awaitReleases(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, releasePatience)
	defer stop()
	err := c.await(ctx, func(s State) bool {
		_, err := updateOrder(s)
		return problem.CodeOf(err) != "member_release_unknown"
	})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil // updateOrder says which
	}
	return err
}

// updateOne restarts a member's server, and says how long that, or the change of the leader, took.
func (c *Cluster) updateOne(ctx context.Context, m Seen, leads bool) (time.Duration, error) {
	ctx, stop := context.WithTimeoutCause(ctx, updatePatience, problem.New(problem.Transient, "member_update_failed", "the server of %s was not restarted within %s", m.Name, updatePatience).On(m.Name).
		WithHint("its logs in %s say what it is doing; then call twinspan instance update again", m.Place))
	defer stop()
	began := time.Now()
	s := c.State()
	if !leads || servers(s.Members) == 1 {
		err := c.ordered(ctx, m, m.Member, "/restart", map[string]any{})
		return time.Since(began), err
	}
	// Commits wait for it, so it has all that was acknowledged.
	at := slices.IndexFunc(s.Members, func(o Seen) bool { return o.Role == "sync_standby" && o.Answers && !o.Installed.Newer(o.Running) })
	if at < 0 {
		return 0, problem.New(problem.Transient, "members_wait", "no standby has what is committed: the leader %s is not restarted", m.Name).On(m.Name).
			WithHint("bring a member back (twinspan member list), and call twinspan instance update again")
	}
	next := s.Members[at].Name
	if err := c.ordered(ctx, m, c.record.Self, "/switchover", map[string]any{"leader": m.Name, "candidate": next}); err != nil {
		return 0, err
	}
	err := c.await(ctx, func(s State) bool { return s.Leader == next })
	return time.Since(began), err
}

func (c *Cluster) ordered(ctx context.Context, m Seen, of Member, path string, in any) error {
	err := c.patroni.order(ctx, of, path, in)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return problem.Wrap(err, problem.Transient, "member_update_failed", "the server of %s was not restarted", m.Name).On(m.Name).
		WithHint("its logs in %s say why; then call twinspan instance update again", m.Place)
}

// awaitFollowing waits until every server but the leader's follows it, and commits have a standby to wait for.
func (c *Cluster) awaitFollowing(ctx context.Context) error {
	late := problem.New(problem.Transient, "member_behind", "a standby did not follow the leader within %s, so that no other server is restarted", updatePatience).
		WithHint("twinspan member list names it; call twinspan instance update again when it follows")
	ctx, stop := context.WithTimeoutCause(ctx, updatePatience, late)
	defer stop()
	return c.await(ctx, func(s State) bool {
		for _, m := range s.Members {
			if !m.Witness && m.Name != s.Leader && (m.State != "streaming" || !m.Answers || !m.Alive) {
				return false
			}
		}
		waited := slices.ContainsFunc(s.Members, func(m Seen) bool { return m.Role == "sync_standby" })
		return s.Leader != "" && (waited || servers(s.Members) == 1)
	})
}

// awaitRelease waits until a member's server follows, or leads, with the release that is installed beside it.
func (c *Cluster) awaitRelease(ctx context.Context, m Seen) (now instance.Release, err error) {
	late := problem.New(problem.Transient, "member_update_failed", "the server of %s does not run %s yet, %s after it was restarted", m.Name, m.Installed, updatePatience).On(m.Name).
		WithHint("its logs in %s say what it is doing; then call twinspan instance update again", m.Place)
	ctx, stop := context.WithTimeoutCause(ctx, updatePatience, late)
	defer stop()
	err = c.await(ctx, func(s State) bool {
		at := slices.IndexFunc(s.Members, func(o Seen) bool { return o.Name == m.Name })
		if at < 0 || s.Members[at].Installed.Newer(s.Members[at].Running) {
			return false
		}
		now = s.Members[at].Running
		return now.Known() && (s.Leader == m.Name || s.Members[at].State == "streaming")
	})
	return now, err
}

// await waits until the state is as wanted.
func (c *Cluster) await(ctx context.Context, wanted func(State) bool) error {
	for {
		changed := c.Changed()
		if wanted(c.State()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}
