package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// README's link by hand, typed as it stands there, on servers as Debian makes them: only
// places differ. Then the sides change places and back.
func TestREADMEByHand(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("pg_createcluster"); err != nil {
		t.Log("this is no Debian with a server: ", err)
		return
	}
	r := newReader(t)
	for _, name := range []string{"a", "b"} {
		r.cluster(name)
	}
	r.psql("a", "postgres", `CREATE DATABASE sales`)
	r.psql("a", "sales", `CREATE TABLE orders (id serial PRIMARY KEY, what text); INSERT INTO orders (what) SELECT 'order ' || g FROM generate_series(1, 5000) g; CREATE TABLE log (line text)`)
	token := ""
	for _, line := range readmeCommands(t) {
		words := strings.NewReplacer("TOKEN", token, "/var/lib/twinspan/", r.base+"/").Replace(line)
		side := regexp.MustCompile(`--dir \S*/([ab])\b`).FindStringSubmatch(words)[1]
		words = strings.NewReplacer("host=/var/run/postgresql port=5432", fmt.Sprintf("host=%s port=%d", r.base, r.ports[side]),
			side+".example:5022", fmt.Sprintf("127.0.0.1:%d", r.endpoints[side])).Replace(words)
		switch {
		case strings.Contains(words, "twinspan serve"):
			r.serve(words)
		case strings.Contains(words, "link watch"):
			r.watch(words)
		default:
			out := r.run(words)
			if strings.Contains(words, "peer invite") {
				token = strings.TrimSpace(out)
			}
		}
	}
	for i, primary := range []string{"b", "a"} {
		r.run("twinspan link failover sales --dir " + r.base + "/a")
		r.psql(primary, "sales", `INSERT INTO orders (what) VALUES ('written behind failover `+strconv.Itoa(i)+`')`)
	}
	r.run("twinspan link verify sales --dir " + r.base + "/b")
	pgtest.Eventually(t, time.Minute, func() error {
		if n := r.psql("b", "sales", `SELECT count(*) FROM orders`); n != "5002" {
			return fmt.Errorf("%s rows on the twin", n)
		}
		return nil
	})
}

// readmeCommands are the lines of README's link by hand.
func readmeCommands(t *testing.T) (lines []string) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## A link by hand\n")
	_, block, _ := strings.Cut(section, "```\n")
	block, _, _ = strings.Cut(block, "```\n")
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if len(lines) < 10 {
		t.Fatalf("README has %d commands: %q", len(lines), lines)
	}
	return lines
}

// reader does what somebody does who reads README, as the user postgres on Debian.
type reader struct {
	t                *testing.T
	base             string
	as               *syscall.Credential // nil for whoever runs the test
	owner            string
	ports, endpoints map[string]int
}

func newReader(t *testing.T) *reader {
	r := &reader{t: t, ports: map[string]int{}, endpoints: map[string]int{}}
	me, err := user.Current()
	if err == nil && me.Uid == "0" {
		me, err = user.Lookup("postgres")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.owner = me.Username
	uid, _ := strconv.Atoi(me.Uid)
	gid, _ := strconv.Atoi(me.Gid)
	// A socket's name is short.
	if r.base, err = os.MkdirTemp("", "readme"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(r.base) })
	program := filepath.Join(r.base, "twinspan")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/twinspan").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	for _, d := range []string{"etc", "log"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(r.base, d), 0o755))
	}
	if os.Getuid() == 0 {
		r.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		for _, d := range []string{"", "etc", "log"} {
			err = errors.Join(err, os.Chown(filepath.Join(r.base, d), uid, gid))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// cluster makes a server as Debian does, in directories of the test's own, and sets what
// README says.
func (r *reader) cluster(name string) {
	r.t.Helper()
	r.ports[name], r.endpoints[name] = pgtest.FreePort(), pgtest.FreePort()
	major := r.major()
	r.tool("pg_createcluster", major, name, "-u", r.owner, "-d", r.base+"/data-"+name, "-s", r.base, "-l", r.base+"/log/"+name, "-p", strconv.Itoa(r.ports[name]), "--start-conf", "manual")
	r.t.Cleanup(func() {
		if r.t.Failed() {
			text, _ := os.ReadFile(r.base + "/log/" + name)
			r.t.Logf("log of server %s:\n%s", name, text)
		}
		r.tool("pg_ctlcluster", "--skip-systemctl-redirect", "-m", "immediate", major, name, "stop")
	})
	r.tool("pg_ctlcluster", "--skip-systemctl-redirect", major, name, "start")
	r.psql(name, "postgres", `ALTER SYSTEM SET wal_level = logical`)
	r.tool("pg_ctlcluster", "--skip-systemctl-redirect", major, name, "restart")
}

// major is the newest that is installed as Debian does.
func (r *reader) major() string {
	r.t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		r.t.Fatal("Debian's programs for servers are here, and no server")
	}
	return filepath.Base(filepath.Dir(filepath.Dir(found[len(found)-1])))
}

// tool runs one of Debian's programs.
func (r *reader) tool(name string, args ...string) string {
	r.t.Helper()
	command := exec.Command(name, args...)
	command.Env = append(os.Environ(), "PG_CLUSTER_CONF_ROOT="+r.base+"/etc")
	out, err := command.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (r *reader) psql(name, database, sql string) string {
	r.t.Helper()
	return strings.TrimSpace(r.run(fmt.Sprintf(`psql -XAtq -v ON_ERROR_STOP=1 -h %s -p %d -U %s -d %s -c "%s"`, r.base, r.ports[name], r.owner, database, sql)))
}

// shell is a command line as it is typed.
func (r *reader) shell(words string) *exec.Cmd {
	command := exec.Command("sh", "-c", "exec "+words)
	command.Dir = r.base
	command.Env = []string{"PATH=" + r.base + ":" + os.Getenv("PATH"), "HOME=" + r.base}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: r.as}
	return command
}

func (r *reader) run(words string) string {
	r.t.Helper()
	command := r.shell(words)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		r.t.Fatalf("%s: %v\n%s%s", words, err, &out, &errs)
	}
	return out.String()
}

// serve runs an agent until the test ends, and waits until it answers.
func (r *reader) serve(words string) {
	r.t.Helper()
	command := r.shell(words)
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		command.Wait()
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", words, &log)
		}
	})
	dir := words[strings.Index(words, "--dir"):]
	pgtest.Await(r.t, time.Minute, words, func() error { return r.shell("twinspan link list " + dir).Run() })
}

// watch looks for a moment, and ends it as a person does.
func (r *reader) watch(words string) {
	r.t.Helper()
	command := r.shell(words)
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	seen := make([]byte, 4096)
	n, err := out.Read(seen)
	command.Process.Signal(syscall.SIGINT)
	command.Wait()
	if !strings.Contains(string(seen[:n]), "sales") {
		r.t.Errorf("%s shows %q, %v", words, seen[:n], err)
	}
}
