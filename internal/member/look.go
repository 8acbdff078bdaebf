package member

import (
	"context"
	"encoding/json"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// watch looks at the instance until ctx ends.
func (c *Cluster) watch(ctx context.Context) {
	for ctx.Err() == nil {
		c.lookOnce(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(look):
		}
	}
}

// lookOnce renews the state: what etcd says of the members, what the Patronis say of their servers, and what follows from it for this one.
func (c *Cluster) lookOnce(ctx context.Context) {
	record := c.Record()
	self := record.Self
	before := c.State()
	var s State
	voters, err := c.etcd.members(ctx)
	s.Known = err == nil
	var list []Member
	if err == nil {
		if list, err = c.list(ctx); err != nil {
			s.Known = false
		}
	}
	if !s.Known {
		s.Voting = before.Voting
		list = append([]Member{self}, record.Others...)
	} else {
		list, s.Voting, s.Removed = c.enrol(ctx, voters, list)
		c.remember(list)
	}
	s.Members = c.survey(ctx, list, voters)
	c.tellPrograms(ctx, &s)
	now := time.Now()
	for _, m := range s.Members {
		if m.Role == "leader" && m.Answers {
			s.Leader = m.Name
			s.Leads = m.Name == self.Name
		}
		if m.Name == self.Name {
			// A Patroni that is busy for a moment is no reason to let go of the links; the server itself refuses who does not lead.
			if s.Leads {
				c.led = now
			} else if !m.Answers && before.Leads && now.Sub(c.led) < ledFor {
				s.Leader, s.Leads = self.Name, true
			}
		}
	}
	s.Serves = c.serving(ctx, now)
	if s.Known && s.Voting {
		c.lookForAbsence(ctx, s.Members, now)
	}
	s.Strict = before.Strict
	for _, m := range s.Members {
		if m.Witness || !m.Answers || !self.Witness && m.Name != self.Name {
			continue
		}
		if d, err := c.patroni.config(ctx, m.Member); err == nil {
			s.Strict = d.Strict
			break
		}
	}
	s.Problems = c.judge(s)
	c.set(s)
}

// enrol writes this member into the list where it is missing there, and lets its etcd vote once it can.
func (c *Cluster) enrol(ctx context.Context, voters []voter, list []Member) (all []Member, voting, removed bool) {
	self := c.Record().Self
	at := slices.IndexFunc(voters, func(v voter) bool { return slices.Contains(v.Peers, self.peerURL()) })
	in := slices.IndexFunc(list, func(m Member) bool { return m.Name == self.Name })
	if at >= 0 && voters[at].Name != "" && voters[at].Learner {
		// Refused until it has what the others have.
		if err := c.etcd.promote(ctx, voters[at].ID); err == nil {
			c.Log.Info("this member's etcd votes from now on")
		}
	}
	if in < 0 && c.record.Founder && len(list) == 0 && at >= 0 {
		text, err := json.Marshal(self)
		if err == nil {
			_, err = c.etcd.write(ctx, "", "", []change{{c.memberKey(self.Name), text}})
		}
		if err != nil {
			c.Log.Warn("the member is not enrolled yet", "err", err)
		}
		list = append(list, self)
		in = 0
	}
	return list, at >= 0 && voters[at].Name != "" && !voters[at].Learner, in < 0 && at < 0 && len(list) > 0
}

// remember keeps the others in the record, and tells Patroni of them.
func (c *Cluster) remember(list []Member) {
	others := slices.DeleteFunc(slices.Clone(list), func(m Member) bool { return m.Name == c.record.Self.Name })
	c.mu.Lock()
	if slices.Equal(others, c.record.Others) {
		c.mu.Unlock()
		return
	}
	c.record.Others = others
	record := c.record
	c.mu.Unlock()
	if err := record.Save(c.Dir); err != nil {
		c.Log.Warn("the list of members is not kept", "err", err)
	}
	if record.Self.Witness {
		return
	}
	text, err := c.patroniText()
	if err == nil {
		err = c.put(c.places.patroniConfig(), text)
	}
	if err != nil {
		c.Log.Warn("Patroni is not told of the members", "err", err)
		return
	}
	c.paRun.signal(syscall.SIGHUP)
}

// survey asks every member.
func (c *Cluster) survey(ctx context.Context, list []Member, voters []voter) []Seen {
	self := c.Record().Self
	seen := make([]Seen, len(list))
	var group errgroup.Group
	for i, m := range list {
		seen[i].Member = m
		for _, v := range voters {
			if slices.Contains(v.Peers, m.peerURL()) {
				seen[i].Votes = v.Name != "" && !v.Learner
			}
		}
		group.Go(func() error {
			seen[i].Alive = c.etcd.alive(ctx, m.clientURL())
			return nil
		})
		if m.Witness {
			continue
		}
		group.Go(func() error {
			st, err := c.patroni.standing(ctx, m)
			if err != nil {
				return nil
			}
			seen[i].Answers, seen[i].State, seen[i].Timeline = true, st.State, st.Timeline
			seen[i].Running = instance.ReleaseOf(st.Version)
			switch {
			case (st.Role == "primary" || st.Role == "master") && st.State == "running":
				seen[i].Role = "leader"
			case st.Sync:
				seen[i].Role = "sync_standby"
			case st.Role == "replica":
				seen[i].Role = "replica"
			}
			if st.Streams != "" && st.State == "running" {
				seen[i].State = st.Streams
			}
			return nil
		})
	}
	_ = group.Wait() // returns no error
	for i := range seen {
		if seen[i].Witness {
			seen[i].Role, seen[i].Answers = "witness", seen[i].Alive
		}
	}
	// One that answers knows how far the others are behind. It is asked for the roles too: a leader that has just been thawed takes itself for one still.
	for _, m := range append([]Member{self}, list...) {
		if m.Witness {
			continue
		}
		all, err := c.patroni.cluster(ctx, m)
		if err != nil {
			continue
		}
		for i := range seen {
			at := slices.IndexFunc(all, func(x clusterMember) bool { return x.Name == seen[i].Name })
			if at < 0 {
				continue
			}
			seen[i].Lag = all[at].lag()
			if seen[i].Role == "leader" && all[at].Role != "leader" {
				seen[i].Role = "replica"
			}
		}
		break
	}
	return seen
}

// wanted says how many data members an instance has at least.
const wanted = 3

func errLeaderless() *problem.Error {
	return problem.New(problem.Transient, "member_leaderless", "no member leads: the instance takes no writes").
		WithHint("another member leads within half a minute, as long as more than half of them run")
}

// judge says what is wrong with the instance.
func (c *Cluster) judge(s State) []*problem.Error {
	var list []*problem.Error
	add := func(p *problem.Error) { list = append(list, p) }
	for _, run := range []*program{c.etcdRun, c.paRun} {
		if why := run.why(); why != nil {
			add(why)
		}
	}
	if s.programs != nil {
		add(s.programs)
	}
	if s.Removed {
		add(errRemoved(c.record.Self.Name))
	}
	if !s.Known {
		add(problem.New(problem.Transient, "member_etcd_away", "the etcds of the instance do not answer: none of its servers may lead").
			WithHint("see that more than half of the members run, and that they reach each other"))
		return list
	}
	data, witnesses, sync := 0, 0, 0
	for _, m := range s.Members {
		switch {
		case m.Witness:
			witnesses++
		default:
			data++
		}
		if m.Role == "sync_standby" {
			sync++
		}
		if m.Installed.Newer(m.Running) {
			add(problem.New(problem.Conflict, "instance_update_pending", "the server of %s runs PostgreSQL %s, and %s is installed", m.Name, m.Running, m.Installed).On(m.Name).
				WithHint("twinspan instance update restarts the members one after the other"))
		}
		if !m.Answers || !m.Alive {
			add(problem.New(problem.Transient, "member_away", "the member %s does not answer", m.Name).On(m.Name).
				WithHint("see that its agent runs, in %s; where its host is gone for good: twinspan member remove %s, and join another", m.Place, m.Name))
		} else if !m.Votes {
			add(problem.New(problem.Transient, "member_begins", "the etcd of the member %s does not vote yet", m.Name).On(m.Name).
				WithHint("it does once it has what the others have; where its agent was never started: twinspan member remove %s", m.Name))
		}
	}
	if data+witnesses < wanted {
		add(problem.New(problem.Resource, "members_few", "the instance has %d of %d members: the loss of one stops it", data+witnesses, wanted).
			WithHint("twinspan member invite here, and twinspan member join on another host"))
	}
	if s.Leader == "" {
		add(errLeaderless())
	} else if sync == 0 && data > 1 {
		if s.Strict {
			add(problem.New(problem.Transient, "members_wait", "no standby has what is committed: commits wait").
				WithHint("bring a member back; or let writes go on alone, at the risk of losing what was acknowledged: twinspan member durability available"))
		} else {
			add(problem.New(problem.Transient, "members_alone", "no standby has what is committed: the loss of %s would lose acknowledged commits", s.Leader).On(s.Leader).
				WithHint("bring a member back; its standby is waited for by itself as soon as it follows"))
		}
	}
	return list
}
