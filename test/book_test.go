//go:build docs

package test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// The book's guides, typed as they stand there, one after the other, on servers as Debian
// makes them: only places differ. What a guide asks of the world, it says in a comment.
func TestTheBook(t *testing.T) {
	if _, err := exec.LookPath("pg_createcluster"); err != nil {
		t.Fatal("this is no Debian with a server: ", err)
	}
	r := newReader(t)
	for _, name := range []string{"a", "b"} {
		r.cluster(name)
	}
	for _, name := range []string{"sales", "stock"} {
		r.psql("a", "postgres", `CREATE DATABASE `+name)
		r.psql("a", name, `CREATE TABLE orders (id serial PRIMARY KEY, what text); INSERT INTO orders (what) SELECT 'order ' || g FROM generate_series(1, 2000) g`)
	}
	b := &book{reader: r, agents: map[string]*exec.Cmd{}}
	for _, chapter := range []string{"getting-started", "offload-reading", "disaster", "migrate", "major-upgrade"} {
		text, err := os.ReadFile("../docs/" + chapter + ".md")
		if err != nil {
			t.Fatal(err)
		}
		typed := 0
		for _, part := range regexp.MustCompile("(?s)<!-- test: (.*?) -->|```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			if part[1] != "" {
				b.world(part[1])
			}
			for line := range strings.Lines(part[2]) {
				if line = strings.TrimSpace(line); line != "" {
					t.Logf("%s: %s", chapter, line)
					b.do(line)
					typed++
				}
			}
		}
		if typed < 3 {
			t.Errorf("%s has %d commands", chapter, typed)
		}
		// Whoever has followed the guide has lost nothing.
		for _, name := range []string{"sales", "stock"} {
			for _, side := range []string{"a", "b"} {
				if r.psql(side, "postgres", `SELECT count(*) FROM pg_database WHERE datname = '`+name+`'`) == "1" {
					if n := r.psql(side, name, `SELECT count(*) FROM orders`); n != "2000" && n != "2001" {
						t.Errorf("after %s the database %s of %s has %s rows", chapter, name, side, n)
					}
				}
			}
		}
	}
	r.psql("b", "sales", `INSERT INTO orders (what) VALUES ('after the migration')`)
}

// book types what stands in it.
type book struct {
	*reader
	token  string
	agents map[string]*exec.Cmd
}

func (b *book) do(line string) {
	b.t.Helper()
	words := strings.NewReplacer("TOKEN", b.token, "/var/lib/twinspan/", b.base+"/").Replace(line)
	found := regexp.MustCompile(`--dir \S*/([ab])\b`).FindStringSubmatch(words)
	if found == nil {
		b.t.Fatalf("%s names no agent", line)
	}
	side := found[1]
	words = strings.NewReplacer("host=/var/run/postgresql port=5432", fmt.Sprintf("host=%s port=%d", b.base, b.ports[side]),
		side+".example:5022", fmt.Sprintf("127.0.0.1:%d", b.endpoints[side])).Replace(words)
	switch {
	case strings.Contains(words, "twinspan serve"):
		b.start(side)
	case strings.Contains(words, "--plan"):
		b.shell(words).Run() // 1 where something stands against it now, which it says
	default:
		out := b.run(words)
		if strings.Contains(words, "peer invite") {
			b.token = strings.TrimSpace(out)
		}
	}
}

// start runs an agent until the test ends or it is ended.
func (b *book) start(side string) {
	b.t.Helper()
	command := b.shell("twinspan serve --dir " + b.base + "/" + side)
	if err := command.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.agents[side] = command
	b.t.Cleanup(func() { b.end(side, syscall.SIGTERM) })
	pgtest.Await(b.t, time.Minute, "the agent "+side, func() error { return b.shell("twinspan link list --dir " + b.base + "/" + side).Run() })
}

func (b *book) end(side string, how syscall.Signal) {
	if command := b.agents[side]; command != nil {
		command.Process.Signal(how)
		command.Wait()
		b.agents[side] = nil
	}
}

// world does what a guide presumes.
func (b *book) world(what string) {
	b.t.Helper()
	switch what {
	case "the server and the agent of a are gone":
		b.end("a", syscall.SIGKILL)
		b.tool("pg_ctlcluster", "--skip-systemctl-redirect", "-m", "immediate", b.major(), "a", "stop")
	case "the server and the agent of a are back":
		b.tool("pg_ctlcluster", "--skip-systemctl-redirect", b.major(), "a", "start")
		b.start("a")
		pgtest.Await(b.t, time.Minute, "the old primary to hear of the new one", func() error {
			out, err := b.shell("twinspan link lost sales -o json --dir " + b.base + "/b").CombinedOutput()
			if err != nil || !regexp.MustCompile(`"state": *"read"`).Match(out) {
				return fmt.Errorf("what was lost is not read yet: %v: %s", err, out)
			}
			out, err = b.shell("twinspan link show sales --dir " + b.base + "/a").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "fenced") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	default:
		b.t.Fatalf("the book asks for something that nobody does: %s", what)
	}
}
