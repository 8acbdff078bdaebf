package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/restore"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/telemetry"
)

const (
	// copyAttempts is how often a copy is begun whose source's tables are truncated under it.
	copyAttempts = 3
	// mostCopies is how many copies and restores an agent works on at once: each holds a snapshot or a temporary server, and
	// sessions on both sides.
	mostCopies = 8
	// copiesKept is how many copies that are over are remembered.
	copiesKept = 50
	// sweepEvery is between two looks for what copies have left behind.
	sweepEvery = time.Minute
)

// copies are those of this process, with what peers read of them. Its zero value is ready.
type copies struct {
	mu     sync.Mutex
	jobs   []*copyJob // oldest first
	lent   map[string]lent
	making []string // the ids of drafts of this instance that are under way
}

// copyJob is a copy that is being made, or was.
type copyJob struct {
	of    *copies
	rate  int64  // bytes a second, 0 for no limit
	agent string // the peer's id, where it is made for one
	stop  context.CancelCauseFunc
	done  chan struct{} // closed when nothing is left to do
	view  api.DatabaseCopy
}

func (j *copyJob) show(f func(view *api.DatabaseCopy)) {
	j.of.mu.Lock()
	defer j.of.mu.Unlock()
	f(&j.view)
}

func (j *copyJob) look() api.DatabaseCopy {
	j.of.mu.Lock()
	defer j.of.mu.Unlock()
	v := j.view
	v.Roles, v.Left = append([]string{}, v.Roles...), append([]string{}, v.Left...)
	if v.Restore != nil {
		restored := *v.Restore
		v.Restore = &restored
	}
	return v
}

// add takes a copy in, unless one of the name is under way for the same instance. A second
// one with the id is the first.
func (c *copies) add(j *copyJob) (*copyJob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := 0
	for _, other := range c.jobs {
		switch v := &other.view; {
		case v.ID == j.view.ID:
			if other.agent == j.agent {
				return other, nil
			}
			return nil, copyUnknown(v.ID)
		case v.State != api.Copying:
			over++
		case v.Name == j.view.Name && where(v) == where(&j.view):
			return nil, problem.New(problem.Conflict, "copy_running", "a copy with the name %q is under way", v.Name).On(v.Name).WithHint("twinspan database copies shows it")
		}
	}
	if len(c.jobs)-over >= mostCopies {
		return nil, problem.New(problem.Resource, "copies_at_limit", "%d copies of databases are under way, and no more are made at once", mostCopies).On(j.view.Name).
			WithHint("wait until one is over, or end one with --cancel: twinspan database copies shows them")
	}
	if over >= copiesKept {
		i := slices.IndexFunc(c.jobs, func(o *copyJob) bool { return o.view.State != api.Copying })
		c.jobs = slices.Delete(c.jobs, i, i+1)
	}
	j.of, j.done = c, make(chan struct{})
	c.jobs = append(c.jobs, j)
	return j, nil
}

// where is the peer on whose instance a copy is made, "" for this one.
func where(v *api.DatabaseCopy) string {
	if v.Incoming {
		return ""
	}
	return v.Peer
}

func (c *copies) get(id string) (*copyJob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.jobs, func(j *copyJob) bool { return j.view.ID == id }); i >= 0 {
		return c.jobs[i], nil
	}
	return nil, copyUnknown(id)
}

func copyUnknown(id string) error {
	return problem.New(problem.NotFound, "copy_unknown", "the agent knows no such copy since it was started").On(id).WithHint("twinspan database copies shows those that it knows; an unfinished one leaves nothing")
}

// make notes the id of a draft while f makes it.
func (c *copies) make(id string, f func() error) error {
	c.mu.Lock()
	c.making = append(c.making, id)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.making = slices.DeleteFunc(c.making, func(other string) bool { return other == id })
	}()
	return f()
}

func (c *copies) underWay() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.making)
}

// sweepCopies drops what killed processes have left of copies, until ctx ends.
func (a *Agent) sweepCopies(ctx context.Context) {
	for last := ""; ; {
		err := errors.Join(dbcopy.Sweep(ctx, a.server, a.identity.AgentID(), a.copies.underWay, a.Log),
			restore.Sweep(ctx, a.Dir.Restores(), a.copies.underWay, a.Log))
		if code := problem.CodeOf(err); code != last && ctx.Err() == nil {
			if last = code; err != nil {
				a.Log.Warn("unfinished copies may still be there", telemetry.Failure(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery):
		}
	}
}

// CopyDatabase implements httpapi.Agent.
func (a *Agent) CopyDatabase(ctx context.Context, in api.CopyDatabase) (api.DatabaseCopy, error) {
	if err := dbcopy.CheckName(in.Name); err != nil {
		return api.DatabaseCopy{}, err
	}
	if in.Peer != "" {
		if _, err := a.peerNamed(in.Peer); err != nil {
			return api.DatabaseCopy{}, err
		}
	}
	_, databases, err := a.server.Describe(ctx, false)
	if err != nil {
		return api.DatabaseCopy{}, err
	}
	if !isAmong(databases, in.Database) || dbcopy.IsDraft(in.Database) {
		return api.DatabaseCopy{}, problem.New(problem.NotFound, "database_missing", "the instance has no database %q that can be connected to", in.Database).On(in.Database).
			WithHint("twinspan database list shows the databases")
	}
	if in.Peer == "" && isAmong(databases, in.Name) {
		return api.DatabaseCopy{}, taken(in.Name)
	}
	job := &copyJob{rate: in.BytesPerSecond, view: api.DatabaseCopy{ID: newID(), Database: in.Database, Name: in.Name, Peer: in.Peer}}
	return a.begin(job, func(ctx context.Context) error { return a.copyFrom(ctx, job) })
}

func isAmong(databases []pg.Database, name string) bool {
	return slices.ContainsFunc(databases, func(d pg.Database) bool { return d.Name == name })
}

func taken(name string) error {
	return problem.New(problem.Conflict, "database_exists", "the instance has a database %q already", name).On(name).
		WithHint("choose another name for the copy, or drop that database")
}

// begin has a copy made beside the links.
func (a *Agent) begin(job *copyJob, work func(context.Context) error) (api.DatabaseCopy, error) {
	job.view.State, job.view.Step, job.view.StartedAt = api.Copying, "waiting for a position", time.Now().UTC()
	stopping, stop := context.WithCancelCause(context.Background())
	job.stop = stop
	began, err := a.copies.add(job)
	if err != nil || began != job {
		stop(nil)
	}
	switch {
	case err != nil:
		return api.DatabaseCopy{}, err
	case began != job:
		return began.look(), nil
	}
	err = a.links.beside(func(ctx context.Context) {
		ctx, end := context.WithCancelCause(ctx)
		defer context.AfterFunc(stopping, func() { end(context.Cause(stopping)) })()
		err := work(ctx)
		if ctx.Err() != nil && err != nil {
			err = context.Cause(ctx)
		}
		job.over(err)
		end(nil)
		stop(nil)
		v := job.look()
		a.Log.Info("copy of a database ended", "database", v.Database, "name", v.Name, "peer", v.Peer, "state", string(v.State), "lsn", v.Position, telemetry.Failure(err))
	})
	if err != nil {
		stop(nil)
		job.over(err)
	}
	return job.look(), err
}

// over notes how a copy ended.
func (j *copyJob) over(err error) {
	now := time.Now().UTC()
	j.show(func(v *api.DatabaseCopy) {
		v.EndedAt, v.Step, v.State = &now, "", api.Copied
		if p := problem.As(err); p != nil {
			v.State = api.CopyFailed
			if p.Kind == problem.Cancelled {
				v.State = api.CopyCancelled
			}
			v.Problem = side.ProblemOf(p, api.Blocks)
		}
	})
	close(j.done)
}

// copyFrom makes a copy of a database of this instance. It begins anew, at a later moment,
// where a table was truncated under it or the moment was lost.
func (a *Agent) copyFrom(ctx context.Context, job *copyJob) error {
	for attempt := 1; ; attempt++ {
		job.show(func(v *api.DatabaseCopy) { v.Attempt, v.Step = attempt, "waiting for a position" })
		err := a.copyOnce(ctx, job)
		code := problem.CodeOf(err)
		if err == nil || ctx.Err() != nil || code != "table_changed" && code != "session_lost" || attempt == copyAttempts {
			return err
		}
		a.Log.Info("copy begun anew, at a later position", "name", job.view.Name, "attempt", attempt, telemetry.Failure(err))
	}
}

func (a *Agent) copyOnce(ctx context.Context, job *copyJob) error {
	source, err := a.openSource(ctx, job)
	if err != nil {
		return err
	}
	defer source.Close()
	job.show(func(v *api.DatabaseCopy) { showMoment(v, source.Origin().Moment) })
	if peer := job.view.Peer; peer != "" {
		return a.copyToPeer(ctx, job, source)
	}
	return a.copyHere(ctx, job, newID(), source)
}

func showMoment(v *api.DatabaseCopy, m dbcopy.Moment) {
	v.Position, v.Exact = m.Position.String(), m.Exact
	v.CommittedAt, v.ObjectsAsOf = known(m.CommittedAt), known(m.Objects)
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// openSource takes a moment of the database: of a twin one that the primary had.
func (a *Agent) openSource(ctx context.Context, job *copyJob) (source dbcopy.Source, err error) {
	from := dbcopy.Database{DSN: a.server.WithDatabase(job.view.Database), Find: instance.FindClient, Dir: a.spool(), Log: a.Log}
	var twin *link.Link
	for _, l := range a.links.all() {
		if l.Database() == job.view.Database && l.Role() == role.Secondary {
			twin = l
		}
	}
	if twin == nil {
		return dbcopy.Open(ctx, from)
	}
	job.show(func(v *api.DatabaseCopy) { v.Link = twin.Name() })
	err = twin.Moments().Moment(ctx, func(ctx context.Context, m dbcopy.Moment) (err error) {
		from.At = &m
		source, err = dbcopy.Open(ctx, from)
		return err
	})
	return source, err
}

// copyHere makes a copy of a source on this instance.
func (a *Agent) copyHere(ctx context.Context, job *copyJob, id string, source dbcopy.Source) error {
	target := &dbcopy.Target{
		Server: a.server, Name: job.view.Name, Agent: a.identity.AgentID(), ID: id, Workers: a.copyWorkers(), Places: a.seeders, MaxRate: job.rate, Storage: a.storage, Log: a.Log,
		Progress: func(p dbcopy.Progress) {
			job.show(func(v *api.DatabaseCopy) {
				v.Step, v.TablesTotal, v.TablesDone, v.BytesTotal, v.BytesDone, v.BytesPerSecond = p.Step, p.TablesTotal, p.TablesDone, p.BytesTotal, p.BytesDone, p.Rate
			})
		},
	}
	return a.copies.make(id, func() error {
		result, err := target.Copy(ctx, source)
		if err == nil {
			job.show(func(v *api.DatabaseCopy) {
				v.Roles, v.Left, v.LargeObjects, v.BytesDone = result.Roles, result.Left, result.Objects, v.BytesTotal
				if v.LargeObjects == 0 {
					v.ObjectsAsOf = nil
				}
			})
		}
		return err
	})
}

// copyWorkers is how many parts of a copy are worked on at once, where nobody says: half of
// what a first copy takes, for nobody waits for a copy as a link does, and links go on beside it.
func (a *Agent) copyWorkers() int {
	return cmp.Or(a.config.Limits.SeedWorkers, max(1, seed.DefaultWorkers()/2))
}

// Copies implements httpapi.Agent.
func (a *Agent) Copies(context.Context) ([]api.DatabaseCopy, error) {
	a.copies.mu.Lock()
	jobs := slices.Clone(a.copies.jobs)
	a.copies.mu.Unlock()
	list := make([]api.DatabaseCopy, len(jobs))
	for i, j := range jobs {
		list[len(jobs)-1-i] = j.look()
	}
	slices.SortStableFunc(list, func(x, y api.DatabaseCopy) int { return cmp.Compare(y.StartedAt.UnixNano(), x.StartedAt.UnixNano()) })
	return list, nil
}

// Copy implements httpapi.Agent.
func (a *Agent) Copy(_ context.Context, id string) (api.DatabaseCopy, error) {
	job, err := a.copies.get(id)
	if err != nil {
		return api.DatabaseCopy{}, err
	}
	return job.look(), nil
}

// CancelCopy implements httpapi.Agent.
func (a *Agent) CancelCopy(ctx context.Context, id string) (api.DatabaseCopy, error) {
	job, err := a.copies.get(id)
	if err != nil {
		return api.DatabaseCopy{}, err
	}
	return job.cancel(ctx)
}

// cancel ends a copy and waits until nothing is left to do.
func (j *copyJob) cancel(ctx context.Context) (api.DatabaseCopy, error) {
	j.stop(errCopyCancelled)
	select {
	case <-j.done:
	case <-ctx.Done():
		return j.look(), context.Cause(ctx)
	}
	return j.look(), nil
}

var errCopyCancelled = problem.New(problem.Cancelled, "copy_cancelled", "the copy was cancelled")
