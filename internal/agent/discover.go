package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

const (
	// lookers is how many databases are looked into at once.
	lookers = 8
	// lookTime bounds the look into one database, with its connection.
	lookTime = 15 * time.Second
	// A database that could not be read is looked at again after these pauses.
	firstLook = 2 * time.Second
	lastLook  = 30 * time.Second
)

// troubles are the databases that could not be read, with why. Its zero value is ready.
type troubles struct {
	mu sync.Mutex
	of map[string]*problem.Error
	// strange are the ids of links whose records are not proved to be the agent's.
	strange map[string]bool
}

// doubt notes that the record of a link is not proved to be the agent's.
func (t *troubles) doubt(link string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.strange == nil {
		t.strange = map[string]bool{}
	}
	t.strange[link] = true
}

// set notes what is wrong with a database, nil for nothing, and says whether that is
// news.
func (t *troubles) set(database string, p *problem.Error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.of[database]
	if p == nil {
		delete(t.of, database)
		return before != nil
	}
	if t.of == nil {
		t.of = map[string]*problem.Error{}
	}
	t.of[database] = p
	return before == nil || before.Code != p.Code
}

func (t *troubles) databases() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]string, 0, len(t.of))
	for name := range t.of {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// hiding says why a link may be there that was not found: a database could not be read
// for now, or its record is not proved to be the agent's. nil where there is no reason.
func (t *troubles) hiding(link string) error {
	t.mu.Lock()
	doubted := t.strange[link]
	t.mu.Unlock()
	if doubted {
		return problem.New(problem.Transient, "link_not_proved", "the record of the link on this side is not proved to be this agent's").On(link).
			WithHint("where that agent has lost its directory, or restored it without identity/proof.key: twinspan init --adopt there, with a new directory")
	}
	for _, database := range t.databases() {
		t.mu.Lock()
		p := t.of[database]
		t.mu.Unlock()
		if p != nil && p.Kind == problem.Transient {
			return problem.Wrap(p, problem.Transient, "links_unread", "database %q could not be searched for links yet", database).On(database).
				WithHint("%s", cmp.Or(p.Hint, "end what holds its tables; the agent tries again by itself"))
		}
	}
	return nil
}

// view lists them for people. What the agent's role may not look into is probably
// another's affair.
func (t *troubles) view() []api.Problem {
	list := []api.Problem{}
	for _, database := range t.databases() {
		t.mu.Lock()
		p := t.of[database]
		t.mu.Unlock()
		if p == nil {
			continue
		}
		severity := api.Warns
		if p.Kind == problem.Unauthorised {
			severity = api.Informs
		}
		list = append(list, api.Problem{Code: p.Code, Severity: severity, Subject: database,
			Title: "database " + database + " was not searched for links: " + p.Error(), Hint: p.Hint})
	}
	return list
}

// looked is what the look into one database gave.
type looked struct {
	database string
	found    catalog.Found
	err      error
}

// find looks into every database of the instance. One that cannot be read, or that
// somebody has prepared, is noted and keeps neither the others nor the agent from
// working; only a server that cannot be asked is an error.
func (a *Agent) find(ctx context.Context) ([]*link.Link, error) {
	server, databases, err := a.server.Describe(ctx, false)
	if err != nil {
		return nil, err
	}
	a.facts.Store(&server)
	names := make([]string, 0, len(databases))
	for _, d := range databases {
		if !dbcopy.IsDraft(d.Name) {
			names = append(names, d.Name)
		}
	}
	seen := a.lookInto(ctx, names)
	if slices.ContainsFunc(seen, func(l looked) bool { return away(l.err) }) {
		// The server, or the database alone?
		if _, _, err := a.server.Describe(ctx, false); err != nil {
			return nil, err
		}
	}
	return a.judge(ctx, seen, nil), ctx.Err()
}

// away says whether an error may be the whole server's.
func away(err error) bool {
	return err != nil && problem.KindOf(err) == problem.Transient && !slices.Contains([]string{"55P03", "57014"}, pg.SQLState(err))
}

// lookInto looks into databases, some at once.
func (a *Agent) lookInto(ctx context.Context, names []string) []looked {
	seen := make([]looked, len(names))
	var group errgroup.Group
	group.SetLimit(lookers)
	for i, name := range names {
		group.Go(func() error {
			found, err := a.look(ctx, name)
			seen[i] = looked{name, found, err}
			return nil
		})
	}
	group.Wait()
	return seen
}

func (a *Agent) look(ctx context.Context, database string) (catalog.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	conn, err := a.server.WithDatabase(database).Connect(ctx, catalog.DiscoverSession())
	if err != nil {
		return catalog.Found{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return catalog.Discover(ctx, conn, a.identity.AgentID(), a.key)
}

// judge decides which of the records that were found are the agent's links, and notes
// what is wrong with the others. known are links at work already.
func (a *Agent) judge(ctx context.Context, seen []looked, known map[string]bool) []*link.Link {
	taken := map[string]bool{}
	for id := range known {
		taken[id] = true
	}
	var links []*link.Link
	take := func(database string, r *catalog.Link) {
		taken[r.ID] = true
		links = append(links, link.New(a.place(), database, *r))
	}
	for _, l := range seen {
		for _, r := range l.found.Proved {
			if !taken[r.ID] {
				take(l.database, r)
			}
		}
	}
	// The oldest database first: of two with a record of an earlier release the other is
	// the copy.
	slices.SortStableFunc(seen, func(x, y looked) int { return cmp.Compare(x.found.Database, y.found.Database) })
	for _, l := range seen {
		trouble := l.err
		if pg.IsUnknownDatabase(l.err) || problem.CodeOf(l.err) == "database_missing" {
			trouble = nil // dropped meanwhile
		}
		for _, r := range l.found.Unproved {
			if taken[r.ID] {
				trouble = strange(l.database, r)
				continue
			}
			// The two sides were trusted with all of it.
			if err := a.book.Grant(r.Peer, peer.LinkGrants(l.database, r.ID)); err != nil {
				a.Log.Warn("the link's peer was not granted what the link needs", "link", r.Name, telemetry.Failure(err))
			}
			if err := a.upgrade(ctx, l.database, r); err != nil {
				a.Log.Warn("the link's record could not be marked as the agent's", "link", r.Name, telemetry.Failure(err))
			}
			take(l.database, r)
		}
		for _, r := range l.found.Strange {
			trouble = strange(l.database, r)
			if !taken[r.ID] {
				a.troubles.doubt(r.ID)
			}
		}
		a.noteDatabase(l.database, trouble)
	}
	return links
}

func strange(database string, r *catalog.Link) error {
	return problem.New(problem.Conflict, "link_not_proved", "the record of the link %q in it was not made by this agent for this database: it is a copy, or the agent's directory is not the one of then", r.Name).On(database).
		WithHint("a copy needs nothing of the link: drop its schema twinspan; where the directory was restored without identity/proof.key, take the links over with another one: twinspan init --adopt --dir NEW")
}

func (a *Agent) noteDatabase(database string, err error) {
	if err == nil {
		a.troubles.set(database, nil)
		return
	}
	p := problem.As(err)
	if a.troubles.set(database, p) {
		a.Log.Warn("database not searched for links", "database", database, "code", p.Code, "err", p)
	}
}

// upgrade makes a record of an earlier release the agent's.
func (a *Agent) upgrade(ctx context.Context, database string, r *catalog.Link) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	session := catalog.DiscoverSession()
	session.Name, session.Apply = r.Name+"/upgrade", true
	dsn := a.server.WithDatabase(database)
	conn, err := dsn.Connect(ctx, session)
	if pg.SQLState(err) == "42501" { // a primary's role need not be one that may pass a gate
		session.Apply = false
		conn, err = dsn.Connect(ctx, session)
	}
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return catalog.ProveStored(ctx, conn, r, a.key)
}

// lookAgain looks into the databases that could not be read, until ctx ends, and puts
// the links that it finds to work.
func (a *Agent) lookAgain(ctx context.Context) {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		names := a.troubles.databases()
		if len(names) == 0 {
			continue
		}
		known := map[string]bool{}
		for _, l := range a.links.all() {
			known[l.ID()] = true
		}
		for _, l := range a.judge(ctx, a.lookInto(ctx, names), known) {
			if ctx.Err() != nil {
				return
			}
			a.Log.Info("link found", "link", l.Name(), "database", l.Database())
			if err := a.links.add(l); err != nil {
				a.Log.Warn("link not begun", "link", l.Name(), telemetry.Failure(err))
			}
		}
	}
}
