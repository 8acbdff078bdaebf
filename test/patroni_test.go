//go:build ha

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// patroni is a cluster of two servers, run by Patroni with an etcd.
type patroni struct {
	t     *testing.T
	dir   string
	bin   string
	etcd  int
	nodes [2]*node
}

type node struct {
	name       string
	port, rest int
	process    *exec.Cmd
	ended      chan struct{}
}

// account is whom programs run as that refuse root.
func account(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// run starts a program that ends with the test.
func (c *patroni) run(name string, args ...string) (*exec.Cmd, chan struct{}) {
	c.t.Helper()
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account(c.t), Pdeathsig: syscall.SIGKILL, Setpgid: true}
	ended, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread() // the signal comes at the end of the thread that started it
		defer log.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		c.t.Fatalf("%s: %v (make ha installs it)", args[0], err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if c.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			c.t.Logf("log of %s:\n%s", name, text[max(0, len(text)-5000):])
		}
	})
	return cmd, ended
}

// startPatroni starts a cluster and waits until it has a leader and a replica that
// streams.
func startPatroni(t *testing.T) *patroni {
	t.Helper()
	// Patroni needs more programs than a server.
	var found []string
	for _, cache := range instance.Caches() {
		fetched, _ := filepath.Glob(filepath.Join(cache, "newest/*/bin/pg_basebackup"))
		found = append(found, fetched...)
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_basebackup")
	if found = append(found, installed...); len(found) == 0 {
		t.Fatal("there is no pg_basebackup below /usr/lib/postgresql or in the cache (make ha brings it)")
	}
	c := &patroni{t: t, dir: pgtest.Dir(t), bin: filepath.Dir(found[len(found)-1]), etcd: pgtest.FreePort()}
	if who := account(t); who != nil {
		if err := os.Chown(c.dir, int(who.Uid), int(who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	client, peers := fmt.Sprintf("http://127.0.0.1:%d", c.etcd), fmt.Sprintf("http://127.0.0.1:%d", pgtest.FreePort())
	c.run("etcd", "etcd", "--name", "etcd", "--data-dir", filepath.Join(c.dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "etcd="+peers)
	for i := range c.nodes {
		c.nodes[i] = &node{name: fmt.Sprintf("node%d", i), port: pgtest.FreePort(), rest: pgtest.FreePort()}
		c.start(c.nodes[i])
		if i == 0 {
			pgtest.Eventually(t, linktest.Patience, func() error { return c.ask(c.nodes[0], "/leader") })
		}
	}
	pgtest.Eventually(t, linktest.Patience, func() error { return c.ask(c.nodes[1], "/replica?lag=1MB") })
	return c
}

func (c *patroni) start(n *node) {
	config := filepath.Join(c.dir, n.name+".yml")
	// JSON is YAML.
	text, err := json.Marshal(map[string]any{
		"scope": "twinspan", "name": n.name,
		"restapi": map[string]any{"listen": fmt.Sprintf("127.0.0.1:%d", n.rest), "connect_address": fmt.Sprintf("127.0.0.1:%d", n.rest)},
		"etcd3":   map[string]any{"host": fmt.Sprintf("127.0.0.1:%d", c.etcd)},
		"bootstrap": map[string]any{
			"dcs": map[string]any{
				"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "maximum_lag_on_failover": 16 << 20, "synchronous_mode": true,
				// Patroni drops slots that it does not know.
				"ignore_slots": []any{map[string]any{"type": "logical", "plugin": "pgoutput"}},
				"postgresql": map[string]any{"use_slots": true, "parameters": map[string]any{
					"wal_level": "logical", "max_replication_slots": 20, "max_wal_senders": 20, "shared_buffers": "32MB", "hot_standby_feedback": "on",
				}},
			},
			"initdb": []any{map[string]any{"encoding": "UTF8"}, map[string]any{"locale": "C"}, "no-sync"},
		},
		"postgresql": map[string]any{
			"listen": fmt.Sprintf("127.0.0.1:%d", n.port), "connect_address": fmt.Sprintf("127.0.0.1:%d", n.port),
			"data_dir": filepath.Join(c.dir, n.name), "bin_dir": c.bin, "pgpass": filepath.Join(c.dir, n.name+".pgpass"),
			"parameters":     map[string]any{"unix_socket_directories": c.dir},
			"authentication": map[string]any{"superuser": map[string]any{"username": "postgres"}, "replication": map[string]any{"username": "postgres"}},
			"pg_hba":         []string{"local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"},
		},
	})
	if err == nil {
		err = os.WriteFile(config, text, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	n.process, n.ended = c.run(n.name, "patroni", config)
}

// ask is nil when the node's interface answers 200.
func (c *patroni) ask(n *node, path string) error {
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", n.rest, path))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s %s", n.name, path, r.Status, body)
	}
	return nil
}

func (c *patroni) send(n *node, method, path string, body any) {
	c.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(c.t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d%s", n.rest, path), bytes.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	if answer, _ := io.ReadAll(r.Body); r.StatusCode >= 300 {
		c.t.Fatalf("%s %s: %s %s", method, path, r.Status, answer)
	}
}

// leader returns the node that leads, and the other.
func (c *patroni) leader() (leads, follows *node) {
	c.t.Helper()
	pgtest.Eventually(c.t, linktest.Patience, func() error {
		var err error
		for i, n := range c.nodes {
			if err = c.ask(n, "/leader"); err == nil {
				leads, follows = n, c.nodes[1-i]
				return nil
			}
		}
		return err
	})
	return leads, follows
}

// dsn names both servers.
func (c *patroni) dsn(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=disable&target_session_attrs=read-write", c.nodes[0].port, c.nodes[1].port, database)
}

// kill ends a node, its Patroni and its server, as the crash of a machine would.
func (c *patroni) kill(n *node) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, n.name, "postmaster.pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	postmaster, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(string(text), "\n", 2)[0]))
	if err != nil {
		c.t.Fatal(err)
	}
	_ = n.process.Process.Kill()
	_ = syscall.Kill(postmaster, syscall.SIGKILL)
	<-n.ended
}

// makePermanent tells Patroni to keep the link's slot on both servers, and waits until
// the replica has it.
func (c *patroni) makePermanent(slot, database string) {
	c.t.Helper()
	leads, follows := c.leader()
	c.send(leads, http.MethodPatch, "/config", map[string]any{"slots": map[string]any{slot: map[string]any{"type": "logical", "database": database, "plugin": "pgoutput"}}})
	pgtest.Eventually(c.t, linktest.Patience, func() error {
		_, err := pgtest.Try(c.t.Context(), fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", follows.port),
			`SELECT 1 / count(*) FROM pg_replication_slots WHERE slot_name = '`+slot+`'`)
		return err
	})
}

// A link whose primary is a Patroni cluster with a permanent slot: a switchover under
// load is survived by itself; after the crash of the leader the link goes on by itself,
// or after a repair where the twin had more than the new leader. Nothing that was
// acknowledged is lost.
func TestPatroniCluster(t *testing.T) {
	c := startPatroni(t)
	p := linktest.New(t, linktest.Options{DSN: func(name, dsn string) string {
		if name == "a" {
			return strings.TrimSuffix(c.dsn("postgres"), "&target_session_attrs=read-write")
		}
		return dsn
	}})
	pgtest.Exec(t, c.dsn("postgres"), `CREATE DATABASE bank`)
	a := c.dsn("bank")
	pgtest.Exec(t, a, `CREATE TABLE ledger (id bigint PRIMARY KEY)`)
	l := p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	c.makePermanent("twinspan_"+strings.ReplaceAll(l.ID, "-", ""), "bank")
	w := startWriters(t, a, 4)
	w.more(t, 500)

	leads, follows := c.leader()
	pgtest.Eventually(t, linktest.Patience, func() error { return c.ask(follows, "/sync") })
	// What Patroni sets itself is left to it.
	setLink(t, p.A, "bank", api.SetLink{Mode: api.Sync})
	pgtest.Eventually(t, linktest.Patience, func() error { return hasProblem(t, p.A, "bank", "sync_names_taken") })
	setLink(t, p.A, "bank", api.SetLink{Mode: api.Async})
	c.send(leads, http.MethodPost, "/switchover", map[string]any{"leader": leads.name, "candidate": follows.name})
	pgtest.Eventually(t, linktest.Patience, func() error { return c.ask(follows, "/leader") })
	w.more(t, 500)
	same(t, p, w, a, false)

	// The former leader has to be a synchronous standby again before the next dies, and
	// the slot must have come to it.
	pgtest.Eventually(t, linktest.Patience, func() error { return c.ask(leads, "/sync") })
	c.makePermanent("twinspan_"+strings.ReplaceAll(l.ID, "-", ""), "bank")
	w = startWritersFrom(t, a, 4, 1<<30)
	w.more(t, 500)
	c.kill(follows)
	w.more(t, 500)
	same(t, p, w, a, true)
}

// same ends the writers and compares the twin with whichever server is the primary.
func same(t *testing.T, p *linktest.Pair, w *writers, dsn string, mayPart bool) {
	t.Helper()
	w.end()
	acked := w.acknowledged()
	end := pgtest.Query(t, dsn, `SELECT pg_current_wal_insert_lsn()`)[0][0]
	repaired := false
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "bank")
		if err != nil {
			return err
		}
		if l.Phase == api.Broken && mayPart && !repaired {
			t.Logf("parted: %+v", l.Problems)
			_, err := p.A.Client.ResumeWithRepair(t.Context(), "bank")
			repaired = err == nil
			return fmt.Errorf("being repaired: %v", err)
		}
		if l.Position.Applied == "" {
			return fmt.Errorf("phase %s, it is not known what is applied, problems %+v", l.Phase, l.Problems)
		}
		if at := pgtest.Query(t, dsn, `SELECT $1::pg_lsn <= $2::pg_lsn`, end, l.Position.Applied)[0][0]; l.Phase != api.Replicating || at != "t" && at != "true" {
			return fmt.Errorf("phase %s, applied %s of %s, problems %+v", l.Phase, l.Position.Applied, end, l.Problems)
		}
		return nil
	})
	pgtest.Equal(t, dsn, p.B.Server.DSN("bank"))
	if lost := missing(t, p.B.Server.DSN("bank"), acked); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged commits are lost", len(lost), len(acked))
	}
}
