package schema

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// lockTimeout is the longest that a statement on the primary waits for a lock,
// and so the longest that it can make others wait behind it.
const lockTimeout = time.Second

// lockTries is how often a dump begins again because it did not get a lock.
const lockTries = 20

// Source reads the structure of the primary's database.
type Source struct {
	DSN  *pg.DSN // of the linked database
	Name string  // the link's name, for the names of sessions
	// Find returns the newest program of that name whose major version is at
	// least minMajor, or an error when there is none. instance.FindClient does.
	Find func(program string, minMajor int) (path string, major int, err error)
	// Former gives what a link has changed in the database as it was before: replica
	// identities, the modes of triggers, rules and event triggers, and the limit of connections.
	Former bool
	// Dir is where the dump passes through files, which may hold passwords of user
	// mappings. The owner clears it of what a kill has left there.
	Dir string
}

// Dump reads the structure as it is at an exported snapshot. It takes ACCESS
// SHARE locks on all tables, for seconds, and waits for none longer than a
// second at a time. It fails with pg_dump_too_old when no pg_dump knows the
// server's version, and with session_lost when the snapshot is gone.
func (s *Source) Dump(ctx context.Context, snapshot string) (*Dump, error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Name + "/schema", Settings: map[string]string{"client_encoding": "UTF8"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	c, err := readCatalog(ctx, conn, snapshot, s.Former)
	if err != nil {
		return nil, err
	}
	dump, restore, err := s.programs(c.version / 10000)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.Dir, "schema-")
	if err != nil {
		return nil, problem.Wrap(err, problem.Resource, "no_temporary_directory", "create a directory for the schema")
	}
	defer os.RemoveAll(dir)
	archive := filepath.Join(dir, "schema.dump")
	if err := s.archive(ctx, dump, archive, snapshot, c.encoding); err != nil {
		return nil, err
	}
	result := &Dump{ServerVersion: c.version, Encoding: c.encoding, DropPublic: !c.hasPublic, Extensions: c.extensions}
	for _, section := range []Section{PreData, PostData} {
		text, err := extract(ctx, restore, archive, section)
		if err != nil {
			return nil, err
		}
		result.Entries = append(result.Entries, c.entries(section, split(text))...)
	}
	result.Entries = append(result.Entries, c.refreshes(result.Entries)...)
	result.Entries = c.former.into(result.Entries)
	result.Roles = slices.Concat(mentioned(c.roles, result.Entries), c.propRoles)
	slices.Sort(result.Roles)
	result.Roles = slices.Compact(result.Roles)
	result.Entries = append(result.Entries, c.props...)
	return result, nil
}

// programs finds pg_dump and the pg_restore beside it.
func (s *Source) programs(serverMajor int) (dump, restore string, err error) {
	dump, _, err = s.Find("pg_dump", serverMajor)
	if err != nil {
		return "", "", problem.Wrap(err, problem.Incompatible, "pg_dump_too_old", "there is no pg_dump for a server of version %d beside the primary's agent", serverMajor).
			WithHint("install the PostgreSQL client programs of version %d or newer where the primary's agent runs (on Debian: postgresql-client-%d)", serverMajor, serverMajor)
	}
	return dump, filepath.Join(filepath.Dir(dump), "pg_restore"), nil
}

// archive runs pg_dump, again when it did not get its locks in time.
func (s *Source) archive(ctx context.Context, program, file, snapshot, encoding string) error {
	args := []string{
		"--format=custom", "--compress=0", "--schema-only", "--file=" + file, "--no-password",
		"--snapshot=" + snapshot, "--encoding=" + encoding, fmt.Sprintf("--lock-wait-timeout=%d", lockTimeout.Milliseconds()),
		"--no-publications", "--no-subscriptions", "--no-tablespaces", "--exclude-schema=twinspan",
	}
	env := s.DSN.Environ(s.Name+"/schema", "-c standard_conforming_strings=on")
	for try := 1; ; try++ {
		err := run(ctx, env, program, args...)
		if problem.CodeOf(err) != "lock_not_available" || try == lockTries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockTimeout):
		}
	}
}

// extract turns a section of the archive into SQL. Verbose output has each
// entry's number, object and dependencies in its header.
func extract(ctx context.Context, program, archive string, section Section) (string, error) {
	file := archive + "." + string(section)
	err := run(ctx, append(os.Environ(), "LC_ALL=C"), program, "--verbose", "--section="+string(section), "--no-tablespaces",
		"--no-publications", "--no-subscriptions", "--file="+file, archive)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", problem.Wrap(err, problem.Internal, "pg_restore_failed", "read what pg_restore wrote")
	}
	return string(text), nil
}

// run runs a program to its end.
func run(ctx context.Context, env []string, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return programError(filepath.Base(program), stderr.String(), err)
}

// programError sorts what pg_dump said. Its messages hold names and statements,
// never rows.
func programError(program, stderr string, cause error) error {
	text := firstError(stderr)
	if text == "" {
		text = cause.Error()
	}
	says := func(any ...string) bool {
		return slices.ContainsFunc(any, func(s string) bool { return strings.Contains(stderr, s) })
	}
	switch {
	case says("canceling statement due to statement timeout", "canceling statement due to lock timeout"):
		return problem.New(problem.Transient, "lock_not_available", "%s did not get the lock on a table: %s", program, text)
	case says("invalid snapshot identifier", "could not import the requested snapshot", "snapshot \""):
		return problem.New(problem.Transient, "session_lost", "the snapshot is gone: %s", text)
	case says("out of shared memory", "max_locks_per_transaction"):
		return problem.New(problem.Resource, "locks_used_up", "the primary has too few locks for %s: %s", program, text).
			WithHint("raise max_locks_per_transaction on the primary above its number of tables divided by max_connections, and restart it")
	case says("connection to server", "could not connect", "terminating connection", "closed the connection"):
		return problem.New(problem.Transient, "connection_lost", "%s: %s", program, text)
	}
	return problem.New(problem.Internal, program+"_failed", "%s: %s", program, text)
}

// firstError returns the first line of a program's errors and what belongs to it.
func firstError(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	start := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "error:") || strings.Contains(l, "fatal:") })
	if start < 0 {
		start = max(0, len(lines)-3)
	}
	return strings.Join(strings.Fields(strings.Join(lines[start:min(len(lines), start+3)], " ")), " ")
}

// mentioned returns those of the roles whose name stands in an entry. What is
// granted on the link's own objects needs no role on the other side.
func mentioned(roles []string, entries []Entry) []string {
	found := map[string]bool{}
	for _, e := range entries {
		for _, r := range roles {
			if !found[r] && (strings.Contains(string(e.SQL), r) || strings.Contains(string(e.SQL), sqlname.Quote(r))) {
				found[r] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return !found[r] })
}

// entries turns the parts of a section into entries, without those that are the
// link's own and what is said about them.
func (c *catalog) entries(section Section, s script) []Entry {
	var result []Entry
	dropped := map[int]bool{}
	_, method := tableMethod(s.head, "heap")
	for _, e := range s.entries {
		before := method
		body, next := tableMethod(e.body, method)
		method = next
		about := len(e.needs) > 0 && slices.ContainsFunc(e.needs, func(n int) bool { return dropped[n] })
		if c.own[object{e.class, e.oid}] || about {
			dropped[e.id] = true
			continue
		}
		if child := c.children[e.oid]; child != nil && e.kind == "TABLE" {
			body = child.create(body)
		}
		entry := Entry{Section: section, ID: e.id, Needs: slices.Compact(slices.Sorted(slices.Values(e.needs))),
			Kind: e.kind, Schema: e.space, Name: e.name, SQL: Text(withMethod(body, e.kind, before))}
		if m, ok := c.marks[object{e.class, e.oid}]; ok {
			entry.Table, entry.Refers, entry.Identity = m.table, m.refers, m.identity
		}
		result = append(result, entry)
	}
	return result
}

const setMethod = "SET default_table_access_method = "

// settingLine is a line that pg_restore writes between entries. No such line can
// end a statement's quoted text, for it holds no closing quote.
var settingLine = regexp.MustCompile(`^(?:SET default_table_access_method = ([a-z_][a-z0-9_]*|"[^']+");|SET default_tablespace = '';|` +
	`\\unrestrict [A-Za-z0-9]+|--|-- Completed on [-0-9: A-Za-z+]+|-- PostgreSQL database dump complete)$`)

// tableMethod takes the settings and comments of pg_restore that follow an entry
// off its end, and says which table access method holds for the entries behind.
func tableMethod(body, method string) (string, string) {
	for found := false; ; {
		body = strings.TrimRight(body, " \n\t")
		start := strings.LastIndexByte(body, '\n') + 1
		m := settingLine.FindStringSubmatch(body[start:])
		if m == nil {
			return body, method
		}
		if m[1] != "" && !found {
			method, found = m[1], true
		}
		body = body[:start]
	}
}

// withMethod makes an entry independent of the settings before it, so that it
// can be built in a session of its own.
func withMethod(body, kind, method string) string {
	if method == "heap" || method == "" || !strings.HasPrefix(kind, "TABLE") && kind != "MATERIALIZED VIEW" {
		return body
	}
	return strings.Replace(setMethod, "SET", "SET LOCAL", 1) + method + ";\n" + body +
		"\n" + strings.Replace(setMethod, "SET", "SET LOCAL", 1) + "heap;"
}

// refreshes makes an entry for every materialized view that holds rows on the
// primary, in an order in which each finds filled what it reads, also through
// other views.
func (c *catalog) refreshes(entries []Entry) []Entry {
	id := 0
	for _, e := range entries {
		id = max(id, e.ID)
	}
	var result []Entry
	waits := map[uint32][]int{} // what a reader of the view has to wait for
	var visit func(view uint32) []int
	visit = func(view uint32) []int {
		if known, ok := waits[view]; ok {
			return known
		}
		waits[view] = nil
		var needs []int
		for _, read := range c.reads[view] {
			needs = append(needs, visit(read)...)
		}
		slices.Sort(needs)
		needs = slices.Compact(needs)
		if name, ok := c.populated[view]; ok {
			id++
			result = append(result, Entry{Section: PostData, ID: id, Needs: needs, Kind: kindRefresh, Schema: name.Schema, Name: name.Name,
				Table: name, SQL: Text("REFRESH MATERIALIZED VIEW " + name.SQL() + ";")})
			needs = []int{id}
		}
		waits[view] = needs
		return needs
	}
	for _, view := range slices.Sorted(maps.Keys(c.populated)) {
		visit(view)
	}
	return result
}

// rollback ends a transaction that only read.
func rollback(ctx context.Context, conn *pgx.Conn) {
	// The session is closed after; an error here changes nothing.
	_, _ = conn.Exec(context.WithoutCancel(ctx), "ROLLBACK")
}
