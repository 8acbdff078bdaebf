package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/setup"
)

// agent is a running twinspan serve.
type agent struct {
	label  string
	dir    config.Dir
	client *client.Client
	cmd    *exec.Cmd
	ended  <-chan struct{}
}

// pair is two agents that trust each other: a beside the source, b beside the target.
type pair struct {
	r    *rig
	a, b *agent
}

// newPair starts two agents of a program. through, when not nil, gives the address
// at which b finds a instead of a's own; a does not find b then, or it might dial past it.
func (r *rig) newPair(ctx context.Context, label, program string, source, target way, through func(address string) (string, error)) (p *pair, err error) {
	p = &pair{r: r}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.a, err = r.newAgent(ctx, label+"-a", program, r.a, source, through); err != nil {
		return p, err
	}
	var nowhere func(string) (string, error)
	if through != nil {
		nowhere = func(string) (string, error) {
			port, err := freePort()
			return fmt.Sprintf("127.0.0.1:%d", port), err
		}
	}
	if p.b, err = r.newAgent(ctx, label+"-b", program, r.b, target, nowhere); err != nil {
		return p, err
	}
	invitation, err := p.a.client.Invite(ctx, time.Hour)
	if err != nil {
		return p, err
	}
	if _, err := p.b.client.Join(ctx, api.JoinRequest{Token: invitation.Token}); err != nil {
		return p, err
	}
	return p, until(ctx, 50*time.Millisecond, func() (bool, error) {
		peers, err := p.a.client.Peers(ctx)
		return err == nil && len(peers) == 1 && peers[0].Connected, nil
	})
}

func (r *rig) newAgent(ctx context.Context, label, program string, s *server, over way, through func(string) (string, error)) (*agent, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	g := &agent{label: label}
	if g.dir, err = config.OpenDir(filepath.Join(r.dir, label)); err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	if _, err := setup.Init(ctx, setup.Request{Dir: g.dir, Name: label, DSN: s.conninfo("postgres", over), Endpoint: address}); err != nil {
		return nil, err
	}
	if through != nil {
		if err := g.advertise(address, through); err != nil {
			return nil, err
		}
	}
	if g.client, err = client.New(client.Dial{Socket: g.dir.Socket()}); err != nil {
		return nil, err
	}
	if g.cmd, g.ended, err = child(g.log(), program, "serve", "--dir", g.dir.Path()); err != nil {
		return g, err
	}
	return g, until(ctx, 50*time.Millisecond, func() (bool, error) {
		select {
		case <-g.ended:
			text, _ := os.ReadFile(g.log())
			return false, fmt.Errorf("agent %s ended:\n%s", label, text)
		default:
		}
		_, err := g.client.Links(ctx)
		return err == nil, nil
	})
}

// advertise makes the agent tell others another address than the one it listens at.
func (g *agent) advertise(address string, through func(string) (string, error)) error {
	other, err := through(address)
	if err != nil {
		return err
	}
	c, err := g.dir.Load()
	if err != nil {
		return err
	}
	c.Endpoint.Advertise = other
	if err := os.Remove(g.dir.File()); err != nil {
		return err
	}
	return config.WriteNew(g.dir.File(), config.Render(c))
}

func (g *agent) log() string { return g.dir.Path() + ".log" }

func (g *agent) pid() int { return g.cmd.Process.Pid }

func (g *agent) stop() {
	if g == nil || g.cmd == nil || g.ended == nil {
		return
	}
	g.client.Close()
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-g.ended:
	case <-time.After(15 * time.Second):
		_ = g.cmd.Process.Kill()
		<-g.ended
	}
}

func (p *pair) close() error {
	p.b.stop()
	p.a.stop()
	return nil
}

// profile writes the agent's CPU profile over some seconds into a file.
func (g *agent) profile(ctx context.Context, seconds int, file string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", g.dir.Socket())
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://agent/debug/pprof/profile?seconds=%d", seconds), nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, answer.Body)
	return errors.Join(err, out.Close())
}

// profile records for some seconds what both agents of a link do, if profiles are asked
// for. The function that it returns waits for that.
func (r *rig) profile(ctx context.Context, t *twinspan, what string, seconds int) func() {
	if r.profiles == "" {
		return func() {}
	}
	if err := os.MkdirAll(r.profiles, 0o755); err != nil {
		r.say("no profiles: %v", err)
		return func() {}
	}
	var both sync.WaitGroup
	for _, g := range []*agent{t.pair.a, t.pair.b} {
		both.Go(func() {
			file := filepath.Join(r.profiles, what+"-"+g.label+".pprof")
			if err := g.profile(ctx, seconds, file); err != nil {
				r.say("no profile of %s: %v", g.label, err)
			}
		})
	}
	return both.Wait
}

// twinspan is a link between two agents.
type twinspan struct {
	r     *rig
	label string
	pair  *pair
	db    string // on a; the copy's name is made of the label
}

func (t *twinspan) name() string        { return t.label }
func (t *twinspan) database() string    { return databaseOf(t.label) }
func (t *twinspan) link() string        { return t.label + "-" + t.db }
func (t *twinspan) pids() []int         { return []int{t.pair.a.pid(), t.pair.b.pid()} }
func (t *twinspan) takes(workload) bool { return true }

func (t *twinspan) establish(ctx context.Context) error {
	_, err := t.pair.a.client.CreateLink(ctx, api.CreateLink{Name: t.link(), Database: t.db, Peer: t.pair.b.label, PeerDatabase: t.database()})
	if err != nil {
		return err
	}
	return t.reach(ctx, 20*time.Millisecond, api.Replicating)
}

// reach waits for one of the phases on the secondary.
func (t *twinspan) reach(ctx context.Context, every time.Duration, phases ...api.Phase) error {
	return t.watch(ctx, every, func(l api.Link) bool { return slices.Contains(phases, l.Phase) })
}

// watch looks at the twin's side of the link until done says so.
func (t *twinspan) watch(ctx context.Context, every time.Duration, done func(api.Link) bool) error {
	return until(ctx, every, func() (bool, error) {
		l, err := t.pair.b.client.Link(ctx, t.link())
		if err != nil {
			return false, nil // not there yet
		}
		if l.Phase == api.Broken {
			return false, fmt.Errorf("link %s broke: %+v", t.link(), l.Problems)
		}
		return done(l), nil
	})
}

func (t *twinspan) suspend(ctx context.Context) error {
	_, err := t.pair.b.client.Suspend(ctx, t.link())
	return err
}

func (t *twinspan) resume(ctx context.Context) error {
	_, err := t.pair.b.client.Resume(ctx, t.link())
	return err
}

func (t *twinspan) remove(ctx context.Context) error {
	_, err := t.pair.a.client.DeleteLink(ctx, t.link(), false)
	return err
}
