package member

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// mostMembers bounds an instance: an etcd of more has no use.
const mostMembers = 7

// pushEvery is how often the member that leads looks whether a file that all share has changed.
const pushEvery = time.Second

// errLost ends what only the member that leads may do.
func errLost() *problem.Error {
	return problem.New(problem.Transient, "member_stands_by", "this member does not lead any more").WithHint("ask the agent of the member that leads: twinspan member list names it")
}

// Pull takes what the members share, and says whether the directory differed. What nobody has shared yet is left as it is.
func (c *Cluster) Pull(ctx context.Context) (changed bool, err error) {
	found, err := c.etcd.under(ctx, c.filesKey(""))
	if err != nil || len(found) == 0 {
		return false, err
	}
	files := Files{}
	c.mu.Lock()
	c.pushed = map[string][sha256.Size]byte{}
	c.mu.Unlock()
	for _, p := range found {
		text, err := c.sealing.open(p.key, p.value)
		if err != nil {
			return false, err
		}
		files[strings.TrimPrefix(p.key, c.filesKey(""))] = text
		c.mu.Lock()
		c.pushed[p.key] = digest(text)
		c.mu.Unlock()
	}
	return WriteShared(c.Dir, files)
}

// Push gives the others what has changed of what the members share. It is refused once this member does not lead: then another one's is what counts.
func (c *Cluster) Push(ctx context.Context) error {
	files, tooLong, err := ReadShared(c.Dir)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if !slices.Equal(tooLong, c.tooLong) && len(tooLong) > 0 {
		c.Log.Warn("files are too long to be shared: the other members keep what they have of them",
			"files", tooLong, "most", mostShared)
	}
	c.tooLong = tooLong
	changes, next := c.changes(files, tooLong)
	c.mu.Unlock()
	// etcd takes 128 changes and 1.5 MB at once.
	for len(changes) > 0 {
		n, size := 0, 0
		for n < len(changes) && n < 100 && (n == 0 || size+len(changes[n].value) < 1<<20) {
			size += len(changes[n].value)
			n++
		}
		leads, err := c.etcd.write(ctx, c.leaderKey(), c.record.Self.Name, changes[:n])
		if err != nil {
			return err
		}
		if !leads {
			return errLost()
		}
		changes = changes[n:]
	}
	c.mu.Lock()
	c.pushed = next
	c.mu.Unlock()
	return nil
}

// changes lists what is to be written to etcd so that it has what this member shares, and what it
// has then. Cluster.mu is held.
func (c *Cluster) changes(files Files, tooLong []string) (list []change, next map[string][sha256.Size]byte) {
	next = map[string][sha256.Size]byte{}
	for path, text := range files {
		key := c.filesKey(path)
		next[key] = digest(text)
		if old, ok := c.pushed[key]; !ok || old != next[key] {
			list = append(list, change{key, c.sealing.seal(key, text)})
		}
	}
	for key, old := range c.pushed {
		if _, ok := next[key]; ok {
			continue
		}
		if path := strings.TrimPrefix(key, c.filesKey("")); slices.Contains(tooLong, path) || !goes(path, files) {
			next[key] = old
			continue
		}
		list = append(list, change{key, nil})
	}
	return list, next
}

// Lead does what only the member that leads does, until ctx ends: it shares what changes, and lets commits wait for a standby always, once there are members enough.
func (c *Cluster) Lead(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		err := c.Push(ctx)
		if code := problem.CodeOf(err); code != said && ctx.Err() == nil {
			if said = code; err != nil {
				c.Log.Warn("what the members share was not written", "err", err)
			}
		}
		c.keepStrict(ctx)
		c.sign(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(pushEvery):
		}
	}
}

// sighting is what the agent that serves has last said, and when it was seen here to change: clocks of hosts differ.
type sighting struct {
	said string
	seen time.Time
}

// sign says that this member's agent serves.
func (c *Cluster) sign(ctx context.Context) {
	said := c.record.Self.Name + " " + strconv.FormatInt(time.Now().UnixNano()/int64(3*time.Second), 10)
	c.mu.Lock()
	old := c.signed
	c.mu.Unlock()
	if said == old {
		return
	}
	if leads, err := c.etcd.write(ctx, c.leaderKey(), c.record.Self.Name, []change{{c.servesKey(), []byte(said)}}); err == nil && leads {
		c.mu.Lock()
		c.signed = said
		c.mu.Unlock()
	}
}

// serving returns the member whose agent has given a sign lately, "" for none.
func (c *Cluster) serving(ctx context.Context, now time.Time) string {
	found, err := c.etcd.under(ctx, c.servesKey())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && len(found) == 1 && string(found[0].value) != c.serves.said {
		c.serves = sighting{string(found[0].value), now}
	}
	if now.Sub(c.serves.seen) > servesFor {
		return ""
	}
	name, _, _ := strings.Cut(c.serves.said, " ")
	return name
}

// Durability says whether commits wait for a standby whatever happens, or go on without one: "strict" or "available".
func (c *Cluster) Durability(ctx context.Context) (string, error) {
	found, err := c.etcd.under(ctx, c.strictKey())
	if err != nil {
		return "", err
	}
	if len(found) == 1 {
		return string(found[0].value), nil
	}
	if c.Record().Available {
		return Available, nil
	}
	return Strict, nil
}

// The two durabilities.
const (
	Strict    = "strict"
	Available = "available"
)

// SetDurability changes it.
func (c *Cluster) SetDurability(ctx context.Context, to string) error {
	if to != Strict && to != Available {
		return problem.New(problem.Invalid, "member_durability", "%.40q is no durability", to).WithHint("strict or available")
	}
	leads, err := c.etcd.write(ctx, c.leaderKey(), c.record.Self.Name, []change{{c.strictKey(), []byte(to)}})
	if err == nil && !leads {
		return errLost()
	}
	c.keepStrict(ctx)
	return err
}

// keepStrict makes commits wait for a standby whatever happens where that is wanted and the instance has three servers; with fewer, the loss of one would
// stop writes, which is what an instance is made against.
func (c *Cluster) keepStrict(ctx context.Context) {
	s := c.State()
	if !s.Leads || !s.Known {
		return
	}
	durability, err := c.Durability(ctx)
	if err != nil {
		return
	}
	data := 0
	for _, m := range s.Members {
		if !m.Witness && m.Votes {
			data++
		}
	}
	now, err := c.patroni.config(ctx, c.record.Self)
	if err != nil {
		return
	}
	// Once it was strict a member that does not vote for a while changes nothing: it is that what it is for.
	want := durability == Strict && (data >= wanted || now.Strict && servers(s.Members) >= wanted)
	if want == now.Strict {
		return
	}
	if err := c.patroni.change(ctx, c.record.Self, map[string]any{"synchronous_mode_strict": want}); err != nil {
		c.Log.Warn("what commits wait for was not changed", "err", err)
		return
	}
	c.Log.Info("what commits wait for was changed", "strict", want, "servers", data)
}

// servers counts the members that have one.
func servers(list []Seen) (n int) {
	for _, m := range list {
		if !m.Witness {
			n++
		}
	}
	return n
}

// KeepSlots lets the standbys have slots of links, by the database of each, as Patroni's permanent slots, so that a link goes on where another member leads. gone
// are those that standbys had and no link has any more: Patroni has made them anew if they were dropped before it was told, so the caller drops them.
func (c *Cluster) KeepSlots(ctx context.Context, want map[string]string) (gone []string, err error) {
	now, err := c.patroni.config(ctx, c.record.Self)
	if err != nil {
		return nil, err
	}
	patch := map[string]any{}
	for name, database := range want {
		if have, ok := now.Slots[name]; !ok || have["database"] != database {
			patch[name] = map[string]any{"type": "logical", "database": database, "plugin": "pgoutput"}
		}
	}
	for name := range now.Slots {
		if _, ok := want[name]; !ok && strings.HasPrefix(name, "twinspan_") {
			patch[name] = nil
			gone = append(gone, name)
		}
	}
	if len(patch) == 0 {
		return nil, nil
	}
	return gone, c.patroni.change(ctx, c.record.Self, map[string]any{"slots": patch})
}

// KeptSlots are the slots that standbys have, as Patroni of this member knows them.
func (c *Cluster) KeptSlots(ctx context.Context) ([]string, error) {
	now, err := c.patroni.config(ctx, c.record.Self)
	if err != nil {
		return nil, err
	}
	var list []string
	for name := range now.Slots {
		list = append(list, name)
	}
	return list, nil
}

// Endpoints are where peers reach the agents of the instance, this one's not among them.
func (c *Cluster) Endpoints() []string {
	var list []string
	for _, m := range c.Record().Others {
		if m.Endpoint != "" {
			list = append(list, m.Endpoint)
		}
	}
	return list
}

// Request is what a host says that wants to become a member.
type Request struct {
	Self   Member `json:"self"`   // its name may be "": then one is chosen
	Major  int    `json:"major"`  // newest of its PostgreSQL's programs; 0 of a witness
	Majors []int  `json:"majors"` // all of them
	OwnKey bool   `json:"ownKey"` // it was told where the operator keeps the key of the backups
}

// Answer is what it is told. It holds the secrets of the instance.
type Answer struct {
	Record   Record            `json:"record"`
	Files    Files             `json:"files"`
	Password string            `json:"password"` // the superuser's
	Settings map[string]string `json:"settings,omitempty"`
	Name     string            `json:"name"` // of the agent
	Listen   string            `json:"listen"`
	Allow    []string          `json:"allow"`
	// NoBackups says that the agents of the instance make none.
	NoBackups bool `json:"noBackups,omitempty"`
}

// Admit lets a host become a member: it writes it into the list, and lets its etcd come.
func (c *Cluster) Admit(ctx context.Context, in Request) (Answer, error) {
	c.change.Lock()
	defer c.change.Unlock()
	if !c.State().Leads {
		return Answer{}, errLost()
	}
	list, err := c.list(ctx)
	if err != nil {
		return Answer{}, err
	}
	m := in.Self
	if m.Name == "" {
		m.Name = freeName(list)
	}
	if err := m.check(); err != nil {
		return Answer{}, err
	}
	major := c.Server.Binaries.Major
	switch {
	case len(list) >= mostMembers:
		return Answer{}, problem.New(problem.Conflict, "members_many", "the instance has %d members already", len(list)).WithHint("remove one first: twinspan member remove NAME")
	case !m.Witness && !slices.Contains(in.Majors, major):
		return Answer{}, problem.New(problem.NotFound, "binaries_missing", "no PostgreSQL server of version %d is installed on the host that joins", major).On(m.Host).
			WithHint("install PostgreSQL %d there: all members run the same version", major)
	}
	if err := clash(list, m); err != nil {
		return Answer{}, err
	}
	voters, err := c.etcd.members(ctx)
	if err != nil {
		return Answer{}, err
	}
	for _, v := range voters {
		if v.Name == "" || v.Learner {
			return Answer{}, problem.New(problem.Conflict, "member_begins", "another member has not begun yet").
				WithHint("start its agent, and join when it votes (twinspan member list); where it will not come: twinspan member remove NAME")
		}
	}
	mine, err := c.record.Authority.Issue(m.Name, m.Host)
	if err != nil {
		return Answer{}, err
	}
	files, _, err := ReadShared(c.Dir)
	if err != nil {
		return Answer{}, err
	}
	password, err := c.Server.Password()
	if err != nil {
		return Answer{}, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return Answer{}, err
	}
	key := c.memberKey(m.Name)
	leads, err := c.etcd.write(ctx, c.leaderKey(), c.record.Self.Name, []change{{key, text}})
	if err == nil && !leads {
		err = errLost()
	}
	if err != nil {
		return Answer{}, err
	}
	if err := c.etcd.addLearner(ctx, m.peerURL()); err != nil {
		if _, undo := c.etcd.write(ctx, "", "", []change{{key, nil}}); undo != nil {
			c.Log.Warn("a member that did not come about is listed", "member", m.Name, "err", undo)
		}
		return Answer{}, err
	}
	c.Log.Info("a host becomes a member", "member", m.Name, "host", m.Host, "witness", m.Witness)
	r := Record{Self: m, Scope: c.record.Scope, Authority: c.record.Authority, Mine: mine, Seal: c.record.Seal, Major: major, Available: c.record.Available, Others: list}
	if m.Witness { // it only votes: what it does not need it does not get
		r.Authority.Key, r.Seal, files, password = "", nil, Files{}, ""
	}
	return Answer{Record: r, Files: files, Password: password}, nil
}

// freeName is the first of member1, member2, ... that nobody has.
func freeName(list []Member) string {
	for n := 1; ; n++ {
		name := "member" + strconv.Itoa(n)
		if !slices.ContainsFunc(list, func(m Member) bool { return m.Name == name }) {
			return name
		}
	}
}

// clash refuses a member that another one would be taken for.
func clash(list []Member, m Member) error {
	for _, other := range list {
		if other.Name == m.Name {
			return problem.New(problem.Conflict, "member_name_taken", "the instance has a member %s, in %s", m.Name, other.Place).On(m.Name).
				WithHint("choose another with --member, or remove the other one first: twinspan member remove %s", m.Name)
		}
		if other.Host != m.Host {
			continue
		}
		for _, port := range m.ports() {
			if slices.Contains(other.ports(), port) {
				return problem.New(problem.Conflict, "member_address_taken", "port %d of %s is the member %s's", port, m.Host, other.Name).On(m.Name).
					WithHint("give the members of one host different ports: --port and --member-ports")
			}
		}
		if m.Endpoint != "" && m.Endpoint == other.Endpoint {
			return problem.New(problem.Conflict, "member_address_taken", "the endpoint %s is the member %s's", m.Endpoint, other.Name).On(m.Name).WithHint("give this one another: --endpoint HOST:PORT")
		}
	}
	return nil
}

// Remove takes a member out: its etcd votes no more, and its server is no standby of the instance.
func (c *Cluster) Remove(ctx context.Context, name string) error {
	c.change.Lock()
	defer c.change.Unlock()
	s := c.State()
	if !s.Leads {
		return errLost()
	}
	if name == c.record.Self.Name {
		return problem.New(problem.Conflict, "member_leads", "the member %s leads", name).On(name).WithHint("stop its agent: another one leads then, and can remove it")
	}
	at := slices.IndexFunc(s.Members, func(m Seen) bool { return m.Name == name })
	if at < 0 {
		return problem.New(problem.NotFound, "member_unknown", "the instance has no member %.60q", name).On(name).WithHint("twinspan member list shows them")
	}
	voters, err := c.etcd.members(ctx)
	if err != nil {
		return err
	}
	m := s.Members[at]
	// Those that are left must be able to agree, or nobody leads from then on.
	left, live := 0, 0
	for _, other := range s.Members {
		if other.Name != name && other.Votes {
			left++
			if other.Alive {
				live++
			}
		}
	}
	if m.Votes && live <= left/2 {
		return problem.New(problem.Conflict, "member_needed", "without the member %s only %d of %d voting members would answer: the instance would stop", name, live, left).On(name).
			WithHint("bring another member back first: twinspan member list says which do not answer")
	}
	for _, v := range voters {
		if slices.Contains(v.Peers, m.peerURL()) {
			if err := c.etcd.remove(ctx, v.ID); err != nil {
				return err
			}
		}
	}
	if _, err := c.etcd.write(ctx, "", "", []change{{c.memberKey(name), nil}, {c.programsKey(name), nil}}); err != nil {
		return err
	}
	c.Log.Info("member removed", "member", name)
	return nil
}
