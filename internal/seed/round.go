package seed

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// round is the copying of one list of jobs.
type round struct {
	target   *Target
	sessions []session // the last is the one to copy at
	columns  map[sqlname.Table][]Column
	fenced   *fenced
	meter    *meter
	pace     *pace // nil for no limit

	mu      sync.Mutex // guards what follows
	jobs    []job
	changed map[sqlname.Table]bool
	emptied chan struct{} // closed when no job is left
}

// all copies the jobs with several workers and reports progress.
func (r *round) all(ctx context.Context) ([]sqlname.Table, error) {
	workers, ctx := errgroup.WithContext(ctx)
	for range min(r.target.workers(), len(r.jobs)) {
		workers.Go(func() error { return r.work(ctx) })
	}
	stop := make(chan struct{})
	var reporting sync.WaitGroup
	reporting.Go(func() { r.report(stop) })
	err := workers.Wait()
	close(stop)
	reporting.Wait()
	var changed []sqlname.Table
	for name := range r.changed {
		changed = append(changed, name)
	}
	return changed, err
}

// next takes the next job; none of a table that the session cannot give.
func (r *round) next() (job, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.jobs) > 0 {
		j := r.jobs[0]
		r.jobs = r.jobs[1:]
		if !r.changed[j.table.Name] {
			r.left()
			return j, true
		}
	}
	r.left()
	return job{}, false
}

// left closes emptied once no job is left.
func (r *round) left() {
	if len(r.jobs) > 0 {
		return
	}
	select {
	case <-r.emptied:
	default:
		close(r.emptied)
	}
}

// work copies jobs, in places of its own: while the workers of another link wait that
// have fewer, the place and its session go back to them.
func (r *round) work(ctx context.Context) error {
	for {
		end, wanted, err := r.place(ctx)
		if err != nil || end == nil {
			return err
		}
		more, err := r.workWhile(ctx, wanted)
		end()
		if err != nil || !more {
			return err
		}
	}
}

// place waits for a place among the workers of all links. When the jobs run out
// meanwhile, end is nil.
func (r *round) place(ctx context.Context) (end func(), wanted func() bool, err error) {
	pool := r.target.Places
	if pool == nil {
		return func() {}, func() bool { return false }, nil
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-r.emptied:
			stop()
		case <-waiting.Done():
		}
	}()
	p, err := pool.Take(waiting, r.target.Link)
	if err != nil {
		return nil, nil, ctx.Err()
	}
	return p.End, p.Wanted, nil
}

// workWhile copies jobs in one session until none is left, or the place is wanted; then
// more is true.
func (r *round) workWhile(ctx context.Context, wanted func() bool) (more bool, err error) {
	conn, err := r.target.connect(ctx, r.sessions[len(r.sessions)-1].Encoding)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	c := &copying{target: r.target, conn: conn, sessions: r.sessions, columns: r.columns, fenced: r.fenced, pace: r.pace}
	for ctx.Err() == nil {
		j, ok := r.next()
		if !ok {
			return false, nil
		}
		if err := r.copy(ctx, c, j); err != nil {
			return false, err
		}
		if wanted() {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// copy copies one job. A table that this session cannot give is noted, and no error.
func (r *round) copy(ctx context.Context, c *copying, j job) error {
	moved := r.meter.start(j)
	err := c.do(ctx, j, moved)
	r.meter.finish(j, err == nil)
	if problem.CodeOf(err) == "table_changed" {
		r.mu.Lock()
		r.changed[j.table.Name] = true
		r.mu.Unlock()
		return nil
	}
	if err == nil {
		r.target.Log.Debug("chunk copied", "link", r.target.Name, "table", j.table.Name.String(), "chunk", j.chunk.number)
	}
	return err
}

// reportEvery is how often progress is told.
const reportEvery = time.Second

func (r *round) report(stop <-chan struct{}) {
	if r.target.Progress == nil {
		return
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		r.target.Progress(r.meter.read(time.Now()))
		select {
		case <-tick.C:
		case <-stop:
			r.target.Progress(r.meter.read(time.Now()))
			return
		}
	}
}
