// Package agent is the process beside an instance: it opens the endpoint, finds
// the links of its instance and keeps each at work, serves the API, and stops
// everything in order. It holds no truth of its own.
package agent

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/lease"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/member"
	"github.com/twinspan/twinspan/internal/notify"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
	"github.com/twinspan/twinspan/internal/turns"
	"github.com/twinspan/twinspan/internal/usage"
)

// Agent is one agent's process. Set the exported fields before Run.
type Agent struct {
	Dir     config.Dir
	Version string
	Log     *slog.Logger
	// Ready, when set, is called once the API answers.
	Ready func()
	// FailoverPatience, when set, is how long a planned failover may take beside the time in
	// which running writers may finish.
	FailoverPatience time.Duration

	config    config.Config
	identity  *peer.Identity
	book      *peer.Book
	endpoint  *peer.Endpoint
	server    *pg.DSN
	managed   *instance.Server
	cluster   *member.Cluster  // of an instance with members; nil without
	backups   *backup.Keeper   // of a managed server; nil without
	keys      *pgbackrest.Keys // where the key of the backups is kept; nil without
	scripting sync.Mutex       // held while the script of the backups is written
	spooled   *flow.Spool
	seeders   *turns.Pool
	roles     sync.Mutex // held by a link that makes roles
	links     registry
	together  together
	key       catalog.Key // proves that records are the agent's
	lease     *lease.Lease
	troubles  troubles
	record    record
	asked     requests
	copies    copies
	histories histories
	meter     *usage.Meter // of a managed server; nil of another's
	sizing    sizing
	started   time.Time
	facts     atomic.Pointer[pg.Server] // of the server, once it answered
}

// softMemory is what the process tries to stay below: garbage is collected more
// often rather than memory taken.
const softMemory = 192 << 20

// Run is the life of the agent, until ctx ends. It begins with what others need
// and ends in the opposite order.
func (a *Agent) Run(ctx context.Context) error {
	a.started = time.Now()
	lock, err := a.Dir.Lock()
	if err != nil {
		return err
	}
	defer lock.Release()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	if err := a.open(ctx); err != nil {
		if ctx.Err() != nil && problem.KindOf(err) == problem.Cancelled {
			return nil
		}
		return err
	}
	a.Log.Info("agent starts", telemetry.Agent, a.config.Name, "version", a.Version, "dir", a.Dir.Path())
	defer a.Log.Info("agent stopped")
	defer a.record.begin()()

	// The server outlives the links: it is stopped when nothing needs it any more.
	server, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	below, serverContext := errgroup.WithContext(server)
	if a.managed != nil {
		below.Go(func() error {
			defer stopServer()
			return a.runServer(serverContext)
		})
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		select {
		case <-serverContext.Done(): // the managed server cannot be run
			return problem.New(problem.Resource, "server_stopped", "the managed server stopped")
		case <-ctx.Done():
			return nil
		}
	})
	if a.cluster == nil || !a.cluster.Record().Self.Witness {
		work.Go(func() error { return a.lease.Keep(ctx) })
	}
	work.Go(func() error {
		if a.cluster != nil {
			return a.workAsMember(ctx)
		}
		return a.work(ctx)
	})
	work.Go(func() error {
		a.watchForEvents(ctx)
		return nil
	})
	work.Go(func() error {
		a.keepHistory(ctx)
		return nil
	})
	work.Go(func() error {
		a.watchInstance(ctx)
		return nil
	})
	if a.meter != nil {
		work.Go(func() error {
			a.meter.Run(ctx)
			return nil
		})
	}
	if a.backups != nil && a.cluster == nil {
		work.Go(func() error { return a.backups.Run(ctx) })
	}
	manager := notify.FromEnvironment(os.Getenv)
	work.Go(func() error {
		manager.Watch(ctx, func(ctx context.Context) {
			// What they say does not matter: that they answer does.
			_, _ = a.Info(ctx)
			_, _ = a.Links(ctx)
		})
		return nil
	})
	work.Go(func() error {
		listening := func() {
			if err := manager.Say(notify.Ready); err != nil {
				a.Log.Warn("the service's manager cannot be told that the agent is ready", "err", err)
			}
			if a.Ready != nil {
				a.Ready()
			}
		}
		face := &httpapi.Server{Agent: a, Dir: a.Dir, API: a.config.API, Version: a.Version, Log: a.Log, Listening: listening, Face: a.face}
		return face.Run(ctx)
	})
	err = work.Wait()
	stopServer()
	if serverErr := below.Wait(); serverErr != nil && problem.KindOf(serverErr) != problem.Cancelled {
		return serverErr
	}
	if ctx.Err() != nil && problem.KindOf(err) == problem.Cancelled {
		return nil
	}
	return err
}

// open reads the directory, and makes the managed server when it is the first time.
func (a *Agent) open(ctx context.Context) error {
	var err error
	if a.config, err = a.Dir.Load(); err != nil {
		return err
	}
	a.record.open(a.Dir, a.config, a.Log)
	if a.identity, err = peer.LoadIdentity(a.Dir.Path()); err != nil {
		return err
	}
	if a.book, err = peer.OpenBook(a.Dir.Path()); err != nil {
		return err
	}
	if a.key, err = catalog.OpenKey(a.Dir.Identity()); err != nil {
		return err
	}
	dsn := a.config.Postgres.DSN
	if a.config.Postgres.Managed {
		port, err := a.managedPort()
		if err != nil {
			return err
		}
		a.managed = &instance.Server{Dir: a.Dir.Instance(), Port: port, Log: a.Log}
		if listen := a.config.Postgres.Listen; listen != "" {
			a.managed.Listen, a.managed.TLS, a.managed.HBA = listen, true, instance.HBAFor(a.config.Postgres.Allow)
		}
		if err := a.openServer(ctx); err != nil {
			return err
		}
		dsn = a.managed.DSN()
	}
	if a.server, err = pg.ParseDSN(dsn); err != nil {
		return err
	}
	if a.backups != nil {
		a.backups.Server = a.server
	}
	if a.managed != nil && a.cluster == nil {
		a.openUsage()
	}
	host, _ := os.Hostname() // for people; without it the directory says enough
	a.lease = lease.New(a.server, a.identity.AgentID(), a.placeOf(host+":"+a.Dir.Path()), a.Log)
	a.endpoint = &peer.Endpoint{
		Identity: a.identity, Book: a.book, Name: a.config.Name, Product: a.Version, Log: a.Log,
		Listen: a.config.Endpoint.Listen, Advertise: a.config.Endpoint.Advertise,
	}
	if a.cluster != nil {
		a.endpoint.Others, a.endpoint.Admit = a.cluster.Endpoints, a.admitMember
	}
	a.handle()
	return a.clearSpool()
}

// managedPort is the configured port of a managed server, or the one chosen at its
// first start: a free one, kept in a file, for clients are told of it.
func (a *Agent) managedPort() (int, error) {
	if a.config.Postgres.Port != 0 {
		return a.config.Postgres.Port, nil
	}
	file := filepath.Join(a.Dir.Run(), "postgres-port")
	if text, err := os.ReadFile(file); err == nil {
		if port, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && port > 0 && port < 1<<16 {
			return port, nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, problem.Wrap(err, problem.Resource, "port_unavailable", "find a free port for the managed server")
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if err := durable.Write(file, []byte(strconv.Itoa(port)+"\n"), 0o600); err != nil {
		return 0, problem.Wrap(err, problem.Resource, "dir_not_writable", "keep the managed server's port")
	}
	return port, nil
}

// spool is where values and transactions too large for memory pass through.
func (a *Agent) spool() string { return filepath.Join(a.Dir.Path(), "spool") }

// clearSpool removes what a killed agent left.
func (a *Agent) clearSpool() error {
	if err := os.RemoveAll(a.spool()); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "clear the spool")
	}
	if err := os.MkdirAll(a.spool(), 0o700); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "make the spool")
	}
	a.spooled = flow.NewSpool(a.spool(), int64(a.config.Limits.SpillMB)<<20)
	a.seeders = link.NewSeeders(a.config.Limits.SeedWorkers)
	return nil
}

func (a *Agent) place() link.Place {
	return link.Place{
		Agent: a.identity.AgentID(), AgentName: a.config.Name, Key: a.key, Server: a.server, Address: a.primaryAddress(), Peers: a.endpoint,
		Spool: a.spooled, Workers: a.config.Limits.SeedWorkers, Seeders: a.seeders, Links: a.links.count, Log: a.Log,
		Roles: &a.roles, Linked: a.links.databasesWith, Fence: a.lease.Fence, Outcome: a.outcome, PassOn: a.passOn, MayChange: a.mayChange, FailoverPatience: a.FailoverPatience,
		Storage: a.storage, Turned: a.record.turned, Failing: a.record.failing,
	}
}
