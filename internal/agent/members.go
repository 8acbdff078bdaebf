package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/member"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/restore"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/telemetry"
)

const (
	// shareEvery is how often a member that stands by takes what the one that leads has changed.
	shareEvery = 2 * time.Second
	// slotsEvery is how often slots on members are compared with links.
	slotsEvery = time.Second
)

// openServer makes the managed server where it is the first time, or opens the member's part of an instance.
func (a *Agent) openServer(ctx context.Context) error {
	if !member.IsMember(a.Dir.Path()) {
		if err := a.openSize(); err != nil {
			return err
		}
		if err := a.openBackups(); err != nil {
			return err
		}
		// Before the connection string: it holds the password that this makes, where the
		// server listens on TCP alone.
		return a.managed.Init(ctx)
	}
	a.cluster = &member.Cluster{Dir: a.Dir.Path(), Server: a.managed, Log: a.Log}
	a.managed.Data = member.DataDir(a.managed.Dir)
	if err := a.openSharedBackups(); err != nil {
		return err
	}
	if err := a.cluster.Open(ctx); err != nil {
		return err
	}
	if err := a.followBackups(ctx); err != nil {
		a.Log.Warn("what the backups stand on is not ready yet", telemetry.Failure(err)) // it is looked at again
	}
	return nil
}

// runServer runs the managed server, or the member's programs, until ctx ends.
func (a *Agent) runServer(ctx context.Context) error {
	if a.cluster != nil {
		return a.cluster.Run(ctx)
	}
	return a.managed.Run(ctx)
}

// placeOf is where this process runs, for people.
func (a *Agent) placeOf(place string) string {
	if a.cluster != nil {
		return a.cluster.Record().Self.Name + ", " + place
	}
	return place
}

// workAsMember works the links and speaks with the peers while this member's server leads, and stands by otherwise, until ctx ends.
func (a *Agent) workAsMember(ctx context.Context) error {
	// A process that was killed while it led has left what it was restoring, and this one may not
	// lead for long. Large files take their time to go: nobody waits for that.
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	sweeping.Go(func() {
		if err := restore.Sweep(ctx, a.Dir.Restores(), a.copies.underWay, a.Log); err != nil && ctx.Err() == nil {
			a.Log.Warn("unfinished restores may still be there", telemetry.Failure(err))
		}
	})
	for ctx.Err() == nil {
		standing, stopStanding := context.WithCancel(ctx)
		var beside errgroup.Group
		beside.Go(func() error {
			a.standBy(standing)
			return nil
		})
		leading, stop, err := a.cluster.Leading(ctx)
		stopStanding()
		_ = beside.Wait() // returns no error
		if err != nil {
			return nil // ctx ended
		}
		err = a.serveAsMember(leading)
		ended := leading.Err() != nil
		stop()
		if ctx.Err() == nil && !ended && err != nil {
			return err
		}
		if ctx.Err() == nil {
			a.Log.Info("this member does not lead any more, and stands by")
			a.record.note(api.Event{Kind: api.EventLease, Action: "lost", Code: "member_stands_by", Text: "this member's server does not lead any more; another member's agent works the links"})
		}
	}
	return nil
}

// serveAsMember works the links while ctx lasts.
func (a *Agent) serveAsMember(ctx context.Context) error {
	if err := a.takeShared(ctx); err != nil {
		return nil // ctx ended
	}
	a.Log.Info("this member's server leads: its agent works the links")
	a.lease.Rest()
	group, ctx := errgroup.WithContext(ctx)
	if a.backups != nil {
		group.Go(func() error { return a.serveBackups(ctx) })
	}
	group.Go(func() error {
		a.cluster.Lead(ctx)
		return nil
	})
	group.Go(func() error {
		a.tendLinks(ctx)
		return nil
	})
	group.Go(func() error { return a.work(ctx) })
	return group.Wait()
}

// takeShared takes what the members share until that has worked once; it fails when ctx ends.
func (a *Agent) takeShared(ctx context.Context) error {
	for {
		_, err := a.cluster.Pull(ctx)
		if err == nil {
			err = errors.Join(a.identity.Reread(), a.book.Reread())
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		a.Log.Warn("what the members share cannot be read yet", telemetry.Failure(err))
		select {
		case <-ctx.Done():
		case <-time.After(shareEvery):
		}
	}
}

// standBy keeps what the members share and drops slots of links that are gone, until ctx ends.
func (a *Agent) standBy(ctx context.Context) {
	self := a.cluster.Record().Self
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	stale := true // what the backups stand on was not looked at yet
	for {
		a.links.rest(a.cluster.StandsBy())
		if s := a.cluster.State(); !self.Witness && s.Known && s.Voting && !s.Leads {
			changed, err := a.cluster.Pull(ctx)
			if err == nil && changed {
				err = errors.Join(a.identity.Reread(), a.book.Reread())
			}
			if err == nil && (changed || stale) {
				err = a.followBackups(ctx)
				stale = err != nil
			}
			if err != nil && ctx.Err() == nil {
				a.Log.Debug("what the members share was not read", telemetry.Failure(err))
			}
			if err := a.dropStaleSlots(ctx); err != nil && ctx.Err() == nil {
				a.Log.Debug("slots of links that are gone were not looked for", telemetry.Failure(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// linkSlots are the slots of links on this member's server that nobody uses now.
const linkSlots = `SELECT slot_name::text, database::text, active FROM pg_catalog.pg_replication_slots
	WHERE slot_type = 'logical' AND plugin = 'pgoutput' AND NOT temporary AND slot_name LIKE 'twinspan\_%'`

type heldSlot struct {
	name, database string
	active         bool
}

func (a *Agent) slots(ctx context.Context) ([]heldSlot, error) {
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	conn, err := a.server.Connect(ctx, pg.Session{Name: "members"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, linkSlots)
	if err != nil {
		return nil, pg.Classify(err, "list the slots of links")
	}
	defer rows.Close()
	var list []heldSlot
	for rows.Next() {
		var s heldSlot
		if err := rows.Scan(&s.name, &s.database, &s.active); err != nil {
			return nil, pg.Classify(err, "list the slots of links")
		}
		list = append(list, s)
	}
	return list, pg.Classify(rows.Err(), "list the slots of links")
}

func (a *Agent) dropSlots(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	conn, err := a.server.Connect(ctx, pg.Session{Name: "members"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, `SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = ANY ($1::text[]) AND NOT active`, names)
	return pg.Classify(err, "drop slots of links that are gone")
}

// dropStaleSlots drops slots on a standby that the leader has given up: they would keep its log for ever.
func (a *Agent) dropStaleSlots(ctx context.Context) error {
	have, err := a.slots(ctx)
	if err != nil || len(have) == 0 {
		return err
	}
	kept, err := a.cluster.KeptSlots(ctx)
	if err != nil {
		return err
	}
	var stale []string
	for _, s := range have {
		if !slices.Contains(kept, s.name) && !s.active {
			stale = append(stale, s.name)
		}
	}
	return a.dropSlots(ctx, stale)
}

// tendLinks sees that links go on where another member leads: that standbys have their slots, and that a link whose twin has more than the new leader, or whose
// slot did not come along, is repaired. What the leader lacks was never acknowledged, as long as commits always wait for a standby.
func (a *Agent) tendLinks(ctx context.Context) {
	tick := time.NewTicker(slotsEvery)
	defer tick.Stop()
	clean := map[string]time.Time{} // by link: since when the slot of one to mend has been away
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if a.links.ready() != nil {
			continue
		}
		mend := map[string]string{}
		if durability, err := a.cluster.Durability(ctx); err == nil && durability == member.Strict {
			mend = a.toMend(ctx)
		}
		have, err := a.slots(ctx)
		if err == nil {
			err = a.keepSlots(ctx, have, mend)
		}
		if err != nil {
			if ctx.Err() == nil {
				a.Log.Debug("slots of links were not compared", telemetry.Failure(err))
			}
			continue
		}
		for _, l := range a.links.all() {
			code, broken := mend[l.ID()]
			_, away := clean[l.ID()]
			switch {
			case !broken || slices.ContainsFunc(have, func(s heldSlot) bool { return s.name == slotName(l) }):
				delete(clean, l.ID())
			case !away:
				clean[l.ID()] = time.Now()
			case time.Since(clean[l.ID()]) > slotGone:
				delete(clean, l.ID())
				a.mend(ctx, l, code)
			}
		}
	}
}

// slotGone is how long the slot of a link must have been away before the link is repaired, which makes it anew: Patroni may make
// one that it has been told to forget once more, and a slot of that name would be in the way.
const slotGone = 2 * loopOfPatroni

// loopOfPatroni is how often Patroni compares slots with its configuration.
const loopOfPatroni = 2 * time.Second

func slotName(l *link.Link) string { return "twinspan_" + strings.ReplaceAll(l.ID(), "-", "") }

// keepSlots lets standbys have the slots of links, but for those that are to be mended: their slots are dropped.
func (a *Agent) keepSlots(ctx context.Context, have []heldSlot, mend map[string]string) error {
	want := map[string]string{}
	var drop []string
	for _, l := range a.links.all() {
		name := slotName(l)
		if l.Role() != role.Primary || !slices.ContainsFunc(have, func(s heldSlot) bool { return s.name == name }) {
			continue
		}
		if _, broken := mend[l.ID()]; broken {
			drop = append(drop, name)
		} else {
			want[name] = l.Database()
		}
	}
	gone, err := a.cluster.KeepSlots(ctx, want)
	if err != nil {
		return err
	}
	return a.dropSlots(ctx, append(gone, drop...))
}

// mended are the problems of a link whose primary's server was another one before.
var mended = []string{"primary_behind", "slot_ahead", "slot_lost", "slot_exists"}

// toMend finds the links that are broken by a change of the leader, and says by what.
func (a *Agent) toMend(ctx context.Context) map[string]string {
	found := map[string]string{}
	for _, l := range a.links.all() {
		state := l.State()
		if state.Role != role.Primary || state.Phase != role.Broken {
			continue
		}
		shown, err := a.Link(ctx, l.Name())
		if err != nil {
			continue
		}
		for _, p := range shown.Problems {
			if slices.Contains(mended, p.Code) {
				found[l.ID()] = p.Code
			}
		}
	}
	return found
}

func (a *Agent) mend(ctx context.Context, l *link.Link, code string) {
	if _, err := a.ResumeWithRepair(ctx, l.Name()); err != nil {
		a.Log.Warn("the link is not repaired yet", "link", l.Name(), telemetry.Failure(err))
		return
	}
	a.Log.Info("the link is repaired after a change of the leader", "link", l.Name(), "code", code)
}

// admitMember implements peer.Endpoint's Admit.
func (a *Agent) admitMember(ctx context.Context, request []byte) ([]byte, error) {
	var in member.Request
	if err := json.Unmarshal(request, &in); err != nil {
		return nil, problem.New(problem.Invalid, "request_invalid", "the request to become a member cannot be understood").WithHint("run the same release of twinspan on all members")
	}
	// Not told by this agent, whose word is no reason to run a command there.
	if p := a.config.Postgres; in.OwnKey != p.OwnKey() && !in.Self.Witness && !p.NoBackups {
		whose := "one that its agents have made"
		if p.OwnKey() {
			whose = "its operator's"
		}
		return nil, problem.New(problem.Conflict, "member_backup_key", "the key of the instance's backups is %s", whose).
			WithHint("a member has it from where the others have: --backup-key-file or --backup-key-command of twinspan member join, where it is the operator's, neither where it is not")
	}
	answer, err := a.cluster.Admit(ctx, in)
	if err != nil {
		return nil, err
	}
	answer.Name, answer.Listen, answer.Allow, answer.NoBackups = a.config.Name, a.config.Postgres.Listen, a.config.Postgres.Allow, a.config.Postgres.NoBackups
	return json.Marshal(answer)
}

// memberProblems is what is wrong with the members.
func (a *Agent) memberProblems() []api.Problem {
	list := []api.Problem{}
	if a.cluster == nil {
		return list
	}
	for _, p := range a.cluster.State().Problems {
		list = append(list, shown(p, api.Blocks))
	}
	return list
}

// Members implements httpapi.Agent. Without members it says which process works the links, where two agents have one identity.
func (a *Agent) Members(ctx context.Context) (api.Members, error) {
	if a.cluster == nil {
		place := a.lease.Place
		out := api.Members{Tier: "single", Self: a.config.Name, Leader: "", Serves: a.lease.Elsewhere(), Members: []api.Member{}}
		if out.Serves == "" && a.links.ready() == nil {
			out.Serves = place
		}
		return out, nil
	}
	s := a.cluster.State()
	out := api.Members{
		Tier: "business-critical", Self: a.cluster.Record().Self.Name, Leader: s.Leader, Serves: s.Serves, Strict: s.Strict, Problems: a.memberProblems(), Members: []api.Member{},
	}
	if durability, err := a.cluster.Durability(ctx); err == nil {
		out.Durability = durability
	}
	for _, m := range s.Members {
		one := api.Member{Name: m.Name, Place: m.Place, Endpoint: m.Endpoint, Role: m.Role, State: m.State, Timeline: m.Timeline, Lag: m.Lag, Answers: m.Answers && m.Alive, Votes: m.Votes}
		if !m.Witness {
			one.Address = net.JoinHostPort(m.Host, strconv.Itoa(m.Postgres))
			one.Version, one.Installed = m.Running.String(), m.Installed.String()
		}
		if one.Role == "" {
			one.Role = "unknown"
		}
		out.Members = append(out.Members, one)
	}
	return out, nil
}

// ofMembers refuses what only an instance with members has.
func (a *Agent) ofMembers() error {
	if a.cluster != nil {
		return nil
	}
	return problem.New(problem.Incompatible, "member_none", "the instance has no members: it is one server, or a cluster that somebody else runs").On(a.config.Name).
		WithHint("twinspan init --managed --tier business-critical makes an instance with members")
}

// serves refuses what only the agent that serves does.
func (a *Agent) serves() error {
	if err := a.ofMembers(); err != nil {
		return err
	}
	if !a.cluster.State().Leads {
		return a.cluster.StandsBy()
	}
	return nil
}

// SetMembers implements httpapi.Agent.
func (a *Agent) SetMembers(ctx context.Context, in api.SetMembers) (api.Members, error) {
	if err := a.serves(); err != nil {
		return api.Members{}, err
	}
	if err := a.cluster.SetDurability(ctx, in.Durability); err != nil {
		return api.Members{}, err
	}
	a.Log.Info("durability changed", "to", in.Durability)
	return a.Members(ctx)
}

// InviteMember implements httpapi.Agent.
func (a *Agent) InviteMember(_ context.Context, in api.InviteMember) (api.MemberInvitation, error) {
	if err := a.serves(); err != nil {
		return api.MemberInvitation{}, err
	}
	ttl := time.Duration(in.TTLSeconds) * time.Second
	if ttl == 0 {
		ttl = peer.DefaultInvitation
	}
	expires := time.Now().Add(ttl)
	token, err := a.endpoint.InviteMember(ttl)
	return api.MemberInvitation{Token: token, Expires: expires.UTC()}, err
}

// RemoveMember implements httpapi.Agent.
func (a *Agent) RemoveMember(ctx context.Context, name string) (api.Members, error) {
	if err := a.serves(); err != nil {
		return api.Members{}, err
	}
	if err := a.cluster.Remove(ctx, name); err != nil {
		return api.Members{}, err
	}
	return a.Members(ctx)
}
