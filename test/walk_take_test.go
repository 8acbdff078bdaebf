package test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/walk"
)

// mishap is how a walk failed. A smaller one that fails with the same kind is taken
// for failing likewise.
type mishap struct {
	kind string
	err  error
}

func (m *mishap) String() string { return m.kind + ": " + m.err.Error() }

// walks takes walks between the same servers, each on databases of its own.
type walks struct {
	pair  *linktest.Pair
	setup []walk.Action
	count int
}

// walkRoles makes the roles of a walk, on each server the same.
func walkRoles(name string, server *pgtest.Server) error {
	conn, err := pgx.Connect(context.Background(), server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for i, role := range walk.Roles {
		if i == 0 {
			continue // every server has it
		}
		if _, err := conn.Exec(context.Background(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD %s", sqlname.Quote(role), sqlname.Literal(pgtest.Password))); err != nil {
			return err
		}
		if _, err := conn.Exec(context.Background(), fmt.Sprintf("GRANT %s TO %s", sqlname.Quote(role), sqlname.Quote(walk.Roles[i-1]))); err != nil {
			return err
		}
	}
	return nil
}

// walking is a walk under way: on a database that is linked when a step says so, and on
// another one beside it that never is.
type walking struct {
	pair          *linktest.Pair
	name, control string
	primary, twin *linktest.Side
	linked        bool
	sessions      map[string]*pgx.Conn
	taken         int // transactions
	// What was sent: strings, and those of them that failed on both.
	sent, refused int
}

func (r *walks) begin(t *testing.T, setup []walk.Action) *walking {
	t.Helper()
	r.count++
	w := &walking{pair: r.pair, name: fmt.Sprintf("walk%d", r.count), control: fmt.Sprintf("control%d", r.count), primary: r.pair.A, twin: r.pair.B, sessions: map[string]*pgx.Conn{}}
	for _, database := range []string{w.name, w.control} {
		r.pair.A.Server.CreateDatabase(t, database)
	}
	for _, a := range setup {
		if alike, m := w.take(t, a, linktest.Patience); m != nil || alike {
			t.Fatalf("the setup fails: %v\n%s", m, a)
		}
	}
	w.closeSessions() // those to come begin with the settings
	return w
}

func (w *walking) end(t *testing.T) {
	t.Helper()
	w.closeSessions()
	if !w.linked {
		return
	}
	if _, err := w.pair.A.Client.DeleteLink(t.Context(), w.name, false); err != nil {
		t.Logf("delete link %s: %v", w.name, err)
	}
}

func (w *walking) closeSessions() {
	for _, c := range w.sessions {
		c.Close(context.Background())
	}
	clear(w.sessions)
}

// session returns a role's session to a database, as it is at its beginning.
func (w *walking) session(t *testing.T, s *linktest.Side, database, role string) *pgx.Conn {
	t.Helper()
	key := s.Name + " " + database + " " + role
	if c := w.sessions[key]; c != nil && !c.IsClosed() {
		if _, err := c.PgConn().Exec(t.Context(), "DISCARD ALL").ReadAll(); err == nil {
			return c
		}
		c.Close(context.Background())
	}
	dsn := s.Server.DSN(database)
	if role != "" {
		dsn = s.Server.DSNOf(role, pgtest.Password, database)
	}
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("session of %s to %s: %v", role, database, err)
	}
	w.sessions[key] = c
	return c
}

// give gives an action's commands and returns with which error which string failed.
func (w *walking) give(t *testing.T, c *pgx.Conn, texts []string) (at int, failed *pgconn.PgError) {
	t.Helper()
	for i, text := range texts {
		_, err := c.PgConn().Exec(t.Context(), text).ReadAll()
		if err == nil {
			continue
		}
		if c.PgConn().TxStatus() != 'I' {
			if _, undo := c.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll(); undo != nil {
				t.Fatal(errors.Join(err, undo))
			}
		}
		if !errors.As(err, &failed) {
			t.Fatalf("%v\n%s", err, text)
		}
		return i, failed
	}
	return len(texts), nil
}

// take takes a step. alike says that its SQL failed on both databases alike.
func (w *walking) take(t *testing.T, a walk.Action, patience time.Duration) (alike bool, m *mishap) {
	t.Helper()
	switch a.Do {
	case walk.Link:
		return false, w.link(t, patience)
	case walk.KillA, walk.KillB:
		side := w.pair.A
		if a.Do == walk.KillB {
			side = w.pair.B
		}
		side.Kill()
		side.Start()
		return false, nil
	case walk.FailOver:
		return false, w.changePlaces(t, patience)
	case walk.Compare:
		return false, w.compare(t, patience)
	}
	w.taken++
	texts := a.Texts(w.control, fmt.Sprintf("%s %d", w.control, w.taken))
	there, wanted := w.give(t, w.session(t, w.pair.A, w.control, a.Role), texts)
	texts = a.Texts(w.name, fmt.Sprintf("%s %d", w.name, w.taken))
	here, got := w.give(t, w.session(t, w.primary, w.name, a.Role), texts)
	w.sent += min(len(texts), here+1)
	switch {
	case wanted == nil && got == nil:
		return false, nil
	case wanted != nil && got != nil && wanted.Code == got.Code && there == here:
		w.refused++
		// What is no transaction may have had an effect before it failed.
		return a.End != "" || a.Whole || len(a.SQL) == 1, nil
	case got != nil && wanted != nil:
		return false, &mishap{"it fails otherwise because of the link, with " + got.Code + " for " + wanted.Code, fmt.Errorf("%v (%s) at %d of the strings, %v at %d beside the link\n%s", got, got.Detail+got.Where, here, wanted, there, a)}
	case got != nil:
		return false, &mishap{"refused because of the link with " + got.Code + ownWord(got), fmt.Errorf("%v (%s) at string %d\n%s", got, got.Detail+got.Where, here, a)}
	}
	return false, &mishap{"taken because of the link, instead of " + wanted.Code, fmt.Errorf("%v at string %d\n%s", wanted, there, a)}
}

// ownWord is the link's own word for what it refuses.
func ownWord(e *pgconn.PgError) string {
	if _, after, ok := strings.Cut(e.Detail, "Twinspan"); ok {
		return after
	}
	return ""
}

// link makes the link and waits until it replicates.
func (w *walking) link(t *testing.T, patience time.Duration) *mishap {
	t.Helper()
	request := api.CreateLink{Name: w.name, Database: w.name, Peer: "b"}
	_, err := w.pair.A.Client.CreateLink(t.Context(), request)
	var refused *api.Error
	// What is only warned of is accepted.
	for tries := 0; tries < 8 && errors.As(err, &refused) && !slices.Contains(request.Accept, refused.Code); tries++ {
		t.Logf("link create: %s: %s", refused.Code, refused.Text)
		request.Accept = append(request.Accept, refused.Code)
		_, err = w.pair.A.Client.CreateLink(t.Context(), request)
	}
	if err != nil {
		return &mishap{"the link is not made", err}
	}
	w.linked = true
	if m := w.settled(t, patience); m != nil {
		return m
	}
	// The copy fills materialized views of the twin's tables, though on the primary they may be older.
	refreshViews(t, w.primary.Server.DSN(w.name))
	refreshViews(t, w.primary.Server.DSN(w.control))
	return nil
}

// settled waits until both sides replicate.
func (w *walking) settled(t *testing.T, patience time.Duration) *mishap {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for {
		phases, problems := "", []api.Problem{}
		for _, side := range []*linktest.Side{w.twin, w.primary} {
			l, err := side.Client.Link(t.Context(), w.name)
			if err != nil {
				phases += err.Error()
				continue
			}
			phases += fmt.Sprintf("%s %s; ", l.Role, l.Phase)
			problems = append(problems, l.Problems...)
			if l.Phase == api.Broken && len(l.Problems) > 0 {
				return &mishap{"the link breaks with " + l.Problems[0].Code, brokenLink{l.Problems}}
			}
		}
		if phases == "secondary replicating; primary replicating; " {
			return nil
		}
		if time.Now().After(end) {
			return &mishap{"the link does not come to replicate", fmt.Errorf("%s %+v", phases, problems)}
		}
		<-tick.C
	}
}

// changePlaces lets the sides change places. Sessions that were open are to the side
// that is primary no more.
func (w *walking) changePlaces(t *testing.T, patience time.Duration) *mishap {
	t.Helper()
	if m := w.settled(t, patience); m != nil {
		return m
	}
	w.closeSessions()
	f := failOver(t, w.primary, w.name, api.FailoverRequest{})
	if f.State != api.FailoverDone {
		return &mishap{"the failover does not come about", fmt.Errorf("%+v", f)}
	}
	w.primary, w.twin = w.twin, w.primary
	// The new primary has no index that was left invalid: its twin's are none of its.
	for _, index := range pgtest.Query(t, w.pair.A.Server.DSN(w.control), `SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' WHERE NOT i.indisvalid`) {
		pgtest.Exec(t, w.pair.A.Server.DSN(w.control), `DROP INDEX `+index[0])
	}
	return w.settled(t, patience)
}

// plainly has names and moments read alike, whichever server quotes all names and lies in another time zone.
const plainly = "&options=-c%20quote_all_identifiers%3Doff%20-c%20timezone%3DUTC"

// compare waits for the twin and compares it.
func (w *walking) compare(t *testing.T, patience time.Duration) *mishap {
	t.Helper()
	if !w.linked {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := reach(ctx, w.primary, w.twin, w.name, w.name); err != nil {
		var broken brokenLink
		if errors.As(err, &broken) && len(broken.problems) > 0 {
			return &mishap{"the link breaks with " + broken.problems[0].Code, err}
		}
		return &mishap{"the twin does not come", err}
	}
	a, b := w.primary.Server.DSN(w.name)+plainly, w.twin.Server.DSN(w.name)+plainly
	if d, err := diffContents(ctx, a, b); err != nil {
		return &mishap{"the contents cannot be compared", err}
	} else if d != "" {
		return &mishap{"the contents differ", errors.New("- primary, + twin\n" + d)}
	}
	if d := diffDumps(withoutModes(readDump(t, w.primary.Server, w.name)), withoutModes(readDump(t, w.twin.Server, w.name))) + diffBesides(t, a, b) +
		diffLines(modes(t, a), modes(t, b)); d != "" {
		return &mishap{"the schemas differ", errors.New("- primary, + twin\n" + d)}
	}
	if open := pgtest.Query(t, b, withoutGate); len(open) > 0 {
		return &mishap{"tables of the twin have no gate", fmt.Errorf("%v", open)}
	}
	return nil
}

// modeLine says of a trigger or rule when it fires. A twin puts aside those that would fire there.
var modeLine = regexp.MustCompile(`(?m)^ALTER TABLE .* (ENABLE (ALWAYS|REPLICA)|DISABLE) (TRIGGER|RULE) .*;\n*`)

// identityLine is a replica identity that somebody chose, or a link.
var identityLine = regexp.MustCompile(`(?m)^ALTER TABLE ONLY .* REPLICA IDENTITY .*;\n*`)

// clusterLine is the mark of CLUSTER ... USING, which crosses no link (docs/design/0013).
var clusterLine = regexp.MustCompile(`(?m)^ALTER TABLE .* CLUSTER ON .*;\n*`)

// withoutModes leaves out what a link changes, modes and replica identities, which verify compares, and what does not cross.
func withoutModes(d dump) dump {
	for _, bodies := range d {
		for i, body := range bodies {
			for _, line := range []*regexp.Regexp{modeLine, identityLine, clusterLine} {
				body = line.ReplaceAllString(body, "")
			}
			bodies[i] = strings.TrimSpace(body)
		}
	}
	return d
}

// modes lists when triggers and rules fire, or would if their database were the primary.
func modes(t *testing.T, dsn string) []string {
	t.Helper()
	kept := "NULL"
	if pgtest.Query(t, dsn, `SELECT to_regclass('twinspan.trigger_mode') IS NOT NULL`)[0][0][0] == 't' {
		kept = `(SELECT k.mode FROM twinspan.trigger_mode k WHERE k.class = x.class AND k.object = x.oid AND x.mode = 'O')`
	}
	var lines []string
	for _, row := range pgtest.Query(t, dsn, `SELECT (SELECT concat(c.relnamespace::regnamespace, '.', c.relname) FROM pg_class c WHERE c.oid = x.relation), x.name, coalesce(`+kept+`, x.mode)::text FROM (
		SELECT 'pg_trigger'::regclass AS class, oid, tgrelid::regclass AS relation, tgname AS name, tgenabled AS mode FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT 'pg_rewrite'::regclass, oid, ev_class::regclass, rulename, ev_enabled FROM pg_rewrite WHERE rulename <> '_RETURN'
		) x WHERE x.name !~ '^twinspan_' AND x.relation::text !~ '^(twinspan|pg_catalog|information_schema)\.' AND x.relation::oid >= 16384`) {
		lines = append(lines, "mode of "+strings.Join(row, " "))
	}
	slices.Sort(lines)
	return lines
}

// agreed lets the link compare itself, which is to find what compare found: nothing.
func (w *walking) agreed(t *testing.T, patience time.Duration) *mishap {
	t.Helper()
	if m := w.settled(t, patience); m != nil { // which verify asks for
		return m
	}
	v := verify(t, w.primary.Client, w.name, api.Verify{})
	// A step may have taken SELECT from a table's owner, with whose rights it is compared.
	others := slices.DeleteFunc(slices.Clone(v.Skipped), func(s api.SkippedTable) bool {
		return s.Why == "the owner of the table may not read it" || pgtest.Query(t, w.primary.Server.DSN(w.name), `SELECT relpersistence FROM pg_class WHERE oid = $1::regclass`, s.Table)[0][0] == "u"
	})
	if v.State != api.Equal || len(others) > 0 {
		return &mishap{"verify finds what is not so", fmt.Errorf("%s: %q, skipped %+v, problem %+v", v.State, told(v), v.Skipped, v.Problem)}
	}
	pgtest.Eventually(t, patience, func() error { // sequences do not come with the stream, but with the next look
		if d := diffSequences(t, w.primary.Server.DSN(w.name)+plainly, w.twin.Server.DSN(w.name)+plainly); d != "" {
			return errors.New(d)
		}
		return nil
	})
	return nil
}
