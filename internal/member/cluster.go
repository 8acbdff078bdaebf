package member

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// look is how often a member looks at the others.
	look = time.Second
	// deaf is how long a program may not answer before it is killed.
	deaf = 15 * time.Second
	// ledFor is how long a member whose Patroni does not answer is taken to lead still.
	ledFor = 10 * time.Second
	// servesFor is how long an agent that has given no sign is taken to serve still.
	servesFor = 12 * time.Second
)

// Cluster is a member's part of its instance, as its agent runs it. Set the exported fields, call Open, then Run it. The methods may be used from any goroutine.
type Cluster struct {
	Dir    string           // the agent's
	Server *instance.Server // of the member; of a witness one that is never run
	Log    *slog.Logger

	record   Record
	programs Programs
	places   placesOf
	etcd     *etcd
	patroni  patroni
	sealing  sealing
	etcdRun  *program
	paRun    *program

	mu      sync.Mutex
	state   State
	pushed  map[string][sha256.Size]byte // what this process has written to etcd, by key
	tooLong []string                     // files that were too long for it
	stir    chan struct{}                // closed and replaced when state changes
	led     time.Time                    // when this member was last seen to lead
	absence absence
	signed  string      // the last sign that this process has given
	serves  sighting    // the last sign of the agent that serves
	change  *sync.Mutex // held while etcd's members are changed by this process

	installed instance.Installed // of the server's programs here
}

// State is what a member knows of its instance.
type State struct {
	Members  []Seen
	Leader   string // member whose server takes writes, "" where none is known
	Leads    bool   // this member's server does
	Voting   bool   // this member's etcd is in, and votes
	Removed  bool   // the others have removed this member
	Known    bool   // etcd has answered lately
	Strict   bool   // commits wait for a standby, whatever happens
	Serves   string // member whose agent works the links, as it says itself every few seconds; "" for none
	Problems []*problem.Error

	programs *problem.Error // what is wrong with the server's programs here
}

// Seen is a member as it is seen from here.
type Seen struct {
	Member
	Role     string // leader, sync_standby, replica, witness; "" where nothing is known
	State    string // of its server, as Patroni says
	Timeline int
	Lag      *int64 // bytes behind the leader; nil where it is not known
	Votes    bool
	Alive    bool // its etcd answers
	Answers  bool // its Patroni answers, or it is a witness

	Running   instance.Release // of its server, unknown where Patroni does not say
	Installed instance.Release // of the programs beside it, as its agent says; unknown of one that never did
}

func (c *Cluster) prefix() string              { return "/twinspan-agents/" + c.record.Scope }
func (c *Cluster) memberKey(n string) string   { return c.prefix() + "/members/" + n }
func (c *Cluster) filesKey(p string) string    { return c.prefix() + "/files/" + p }
func (c *Cluster) leaderKey() string           { return "/twinspan/" + c.record.Scope + "/leader" }
func (c *Cluster) servesKey() string           { return c.prefix() + "/serves" }
func (c *Cluster) strictKey() string           { return c.prefix() + "/durability" }
func (c *Cluster) programsKey(n string) string { return c.prefix() + "/programs/" + n }

// Record returns what the directory says of the member.
func (c *Cluster) Record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record
}

// Open reads the member's record, finds its programs and writes what they need.
func (c *Cluster) Open(ctx context.Context) error {
	var err error
	if c.record, err = Load(c.Dir); err != nil {
		return err
	}
	self := c.record.Self
	if c.programs, err = Find(ctx, self.Witness); err != nil {
		return err
	}
	if !self.Witness {
		if c.sealing, err = newSealing(c.record.Seal); err != nil {
			return err
		}
	}
	config, err := dialing(c.record.Authority.Certificate, c.record.Mine)
	if err != nil {
		return err
	}
	client := newHTTP(config)
	c.etcd, c.patroni = &etcd{http: client, urls: c.etcdURLs}, patroni{client}
	c.places = placesOf{c.Server.Dir}
	c.stir, c.pushed, c.change = make(chan struct{}), map[string][sha256.Size]byte{}, &sync.Mutex{}
	if !self.Witness {
		if c.Server.Binaries, err = FindServer(c.record.Major); err != nil {
			return err
		}
		if err := c.Server.Prepare(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.Server.Dir, 0o711); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "make the directory of the server")
	}
	for path, text := range map[string]string{
		c.places.authority(): c.record.Authority.Certificate, c.places.certificate(): c.record.Mine.Certificate, c.places.key(): c.record.Mine.Key,
	} {
		if err := c.put(path, []byte(text)); err != nil {
			return err
		}
	}
	c.etcdRun = &program{
		name: "etcd", config: c.places.etcdConfig(), pid: c.places.in("etcd.pid"), output: c.places.in("etcd.log"), log: c.Log, deaf: deaf,
		make: func() (*exec.Cmd, error) {
			return c.Server.Account(c.programs.Etcd, "--config-file", c.places.etcdConfig())
		},
		healthy: func(ctx context.Context) bool { return c.etcdAnswers(ctx) },
	}
	c.paRun = &program{
		name: "Patroni", config: c.places.patroniConfig(), pid: c.places.in("patroni.pid"), output: c.places.in("patroni.log"), log: c.Log, deaf: deaf,
		make: func() (*exec.Cmd, error) { return c.Server.Account(c.programs.Patroni, c.places.patroniConfig()) },
		healthy: func(ctx context.Context) bool {
			_, err := c.patroni.standing(ctx, self)
			return err == nil
		},
	}
	return nil
}

// put writes a file for the server's user alone, unless it says that already.
func (c *Cluster) put(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && slices.Equal(old, text) {
		return nil
	}
	if err := c.Server.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return c.Server.PutFile(path, text)
}

// etcdURLs are the etcds to ask, this member's own first where it votes.
func (c *Cluster) etcdURLs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, m := range c.record.Others {
		list = append(list, m.clientURL())
	}
	mine := c.record.Self.clientURL()
	if c.state.Voting || c.record.Founder && len(list) == 0 {
		return append([]string{mine}, list...)
	}
	return append(list, mine)
}

func (c *Cluster) etcdAnswers(ctx context.Context) bool {
	var out json.RawMessage
	return c.etcd.askOne(ctx, c.record.Self.clientURL()+"/v3/maintenance/status", []byte("{}"), &out) == nil
}

// Run keeps the member's programs running, and its view of the others fresh, until ctx ends; then it stops Patroni, which hands the lead to another member, and etcd.
func (c *Cluster) Run(ctx context.Context) error {
	// etcd outlives Patroni, which says goodbye to it.
	below, stopEtcd := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEtcd()
	var etcdRuns sync.WaitGroup
	etcdRuns.Go(func() { c.etcdRun.run(below, c.beforeEtcd) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		c.watch(ctx)
		return nil
	})
	if !c.record.Self.Witness {
		group.Go(func() error {
			belongs, stop := context.WithCancel(ctx)
			defer stop()
			go c.stopWhenRemoved(belongs, stop)
			c.paRun.run(belongs, c.beforePatroni)
			return nil
		})
		group.Go(func() error { return c.Server.Watch(ctx) })
	}
	err := group.Wait()
	stopEtcd()
	etcdRuns.Wait()
	return err
}

// stopWhenRemoved ends what a server does for an instance that has removed it: its certificate is good still, and it could lead.
func (c *Cluster) stopWhenRemoved(ctx context.Context, stop context.CancelFunc) {
	for {
		changed := c.Changed()
		if c.State().Removed {
			c.Log.Error("this member was removed from the instance: its server is stopped")
			stop()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// beforePatroni waits until this member's etcd votes, and writes Patroni's configuration.
func (c *Cluster) beforePatroni(ctx context.Context) error {
	for !c.State().Voting {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Changed():
		}
	}
	text, err := c.patroniText()
	if err != nil {
		return err
	}
	return c.put(c.places.patroniConfig(), text)
}

func (c *Cluster) patroniText() ([]byte, error) {
	password, err := c.Server.MakePassword()
	if err != nil {
		return nil, err
	}
	r := c.Record()
	return patroniConfig(plan{self: r.Self, others: r.Others, scope: r.Scope, places: c.places, server: c.Server, password: password})
}

// State returns what is known now.
func (c *Cluster) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	s.Members, s.Problems = slices.Clone(s.Members), slices.Clone(s.Problems)
	return s
}

// Changed returns a channel that is closed when the state changes.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stir
}

func (c *Cluster) set(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
	close(c.stir)
	c.stir = make(chan struct{})
}

// Leading waits until this member's server takes writes, and returns a context that ends when it does not any more.
func (c *Cluster) Leading(ctx context.Context) (context.Context, context.CancelFunc, error) {
	for {
		changed := c.Changed()
		if c.State().Leads {
			break
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-changed:
		}
	}
	leading, stop := context.WithCancel(ctx)
	go func() {
		for {
			changed := c.Changed()
			if !c.State().Leads {
				stop()
				return
			}
			select {
			case <-leading.Done():
				return
			case <-changed:
			}
		}
	}()
	return leading, stop, nil
}

// StandsBy is the problem of what only the member that leads can answer.
func (c *Cluster) StandsBy() *problem.Error {
	s := c.State()
	self := c.Record().Self
	if self.Witness {
		return problem.New(problem.Transient, "member_stands_by", "this member only votes").On(self.Name).WithHint("ask the agent of the member that leads: twinspan member list names it")
	}
	if s.Leader == "" {
		return problem.New(problem.Transient, "member_stands_by", "no member of the instance leads at the moment").On(self.Name).WithHint("another one leads within half a minute, as long as more than half of them run")
	}
	where := s.Leader
	for _, m := range s.Members {
		if m.Name == s.Leader {
			where = fmt.Sprintf("%s, in %s", m.Name, m.Place)
		}
	}
	return problem.New(problem.Transient, "member_stands_by", "this member stands by: the links are worked by %s", s.Leader).On(self.Name).
		WithHint("ask the agent of %s", where)
}
