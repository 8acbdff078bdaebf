package schema

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// deadlockTries is how often an entry is built again after a deadlock, which can
// only be with a session that is not ours.
const deadlockTries = 5

// BuildIdentity builds the index by which the rows of the named tables are told
// apart, for those of them that have one.
func (t *Target) BuildIdentity(ctx context.Context, tables []sqlname.Table) error {
	return t.buildPostData(ctx, func(e *stored) bool { return e.Identity && slices.Contains(tables, e.Table) })
}

// BuildIdentities builds, for every table, the index by which its rows are told
// apart: what applying a stream needs. No other index is built, so no uniqueness
// but that of the identity holds after it.
func (t *Target) BuildIdentities(ctx context.Context) error {
	return t.buildPostData(ctx, func(e *stored) bool { return e.Identity })
}

// BuildRest builds everything that is not built yet, and fills the materialized
// views that are filled on the primary.
func (t *Target) BuildRest(ctx context.Context) error {
	return t.buildPostData(ctx, func(*stored) bool { return true })
}

// ordinary are the settings for whatever runs code of users: indexes, materialized views
// and statistics are made with their owner's rights, by the server (index.c, index_build;
// matview.c; analyze.c), and see what they see on the primary. What the entries' own text
// goes by is not among them.
func (t *Target) ordinary(ctx context.Context) ([]rights.Setting, error) {
	list, err := rights.Ordinary(ctx, t.DSN, t.Name)
	return rights.Without(list, "standard_conforming_strings", "row_security"), err
}

func (t *Target) buildPostData(ctx context.Context, wanted func(*stored) bool) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	entries, err := t.load(ctx, conn, PostData)
	if err != nil {
		return err
	}
	order := stages(entries)
	ordinary, err := t.ordinary(ctx)
	if err != nil {
		return err
	}
	byStage := map[stage][]task{}
	done, total := 0, 0
	forest, err := readForest(ctx, conn)
	if err != nil {
		return err
	}
	for _, i := range closure(entries, wanted) {
		total++
		if entries[i].done {
			done++
			continue
		}
		byStage[order[i]] = append(byStage[order[i]], task{entry: entries[i], locks: locks(&entries[i].Entry, forest.root)})
	}
	for s := stageIdentity; s <= stageLast; s++ {
		tasks := byStage[s]
		if s <= stageIndex {
			// Big ones first, or the last one keeps all but one worker idle.
			slices.SortStableFunc(tasks, func(a, b task) int {
				return cmp.Compare(forest[b.entry.Table].bytes, forest[a.entry.Table].bytes)
			})
		}
		report := func(n int) { t.progress(Progress{Step: s.String(), Done: done + n, Total: total}) }
		if err := t.runStage(ctx, tasks, ordinary, report); err != nil {
			return err
		}
		done += len(tasks)
	}
	return nil
}

// runStage builds the tasks of one stage with as many sessions as are useful.
// report is called with the number of those done, from one goroutine at a time.
func (t *Target) runStage(ctx context.Context, tasks []task, settings []rights.Setting, report func(int)) error {
	if len(tasks) == 0 {
		return nil
	}
	var (
		mu       sync.Mutex // guards q and finished
		q        = newQueue(tasks)
		finished int
		changed  = sync.NewCond(&mu)
	)
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		changed.Broadcast()
	})()
	take := func() (task, bool) {
		mu.Lock()
		defer mu.Unlock()
		for ctx.Err() == nil {
			next, ok, more := q.next()
			if ok || !more {
				return next, ok
			}
			changed.Wait()
		}
		return task{}, false
	}
	for range min(t.workers(), len(tasks)) {
		group.Go(func() error {
			var conn *pgx.Conn
			for {
				next, ok := take()
				if !ok {
					break
				}
				if conn == nil {
					c, err := t.connect(ctx, settings...)
					if err != nil {
						return err
					}
					conn = c
					defer conn.Close(context.WithoutCancel(ctx))
				}
				if err := t.buildOne(ctx, conn, next.entry); err != nil {
					return err
				}
				mu.Lock()
				q.finish(next)
				finished++
				report(finished)
				changed.Broadcast()
				mu.Unlock()
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// buildOne builds an entry, without what only tunes and the server does not know, and
// without an owner that it cannot have here.
func (t *Target) buildOne(ctx context.Context, conn *pgx.Conn, e stored) error {
	for try := 1; ; try++ {
		err := t.build(ctx, conn, []stored{e})
		if entry, left := withoutUnknown(e.Entry, err); left != "" {
			t.Log.Warn("option left out, which the server does not know", "subject", e.Schema+"."+e.Name, "option", left)
			e.Entry, try = entry, 0
			continue
		}
		if entry, left := withoutOwner(e.Entry, err); left {
			t.Log.Warn("owner left out, who is no superuser here", "kind", e.Kind, "subject", e.Name)
			e.Entry, try = entry, 0
			continue
		}
		if problem.CodeOf(err) != "serialization_failure" || try == deadlockTries {
			return err
		}
	}
}

// forest knows the target's tables: their sizes and the trees of partitions.
type forest map[sqlname.Table]treeNode

type treeNode struct {
	bytes  int64
	parent sqlname.Table // zero for none
}

// root returns the top of a table's tree.
func (f forest) root(t sqlname.Table) sqlname.Table {
	for f[t].parent != (sqlname.Table{}) {
		t = f[t].parent
	}
	return t
}

func readForest(ctx context.Context, conn *pgx.Conn) (forest, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname, c.relname, CASE WHEN c.relkind = 'p' THEN 0 ELSE coalesce(pg_table_size(c.oid), 0) END,
		       coalesce(pn.nspname, ''), coalesce(p.relname, '')
		  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		  LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND i.inhseqno = 1
		  LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
		 WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`)
	if err != nil {
		return nil, pg.Classify(err, "list tables")
	}
	f := forest{}
	var name sqlname.Table
	var node treeNode
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &node.bytes, &node.parent.Schema, &node.parent.Name}, func() error {
		f[name] = node
		return nil
	})
	return f, pg.Classify(err, "list tables")
}
