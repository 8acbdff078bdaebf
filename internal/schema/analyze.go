package schema

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Analyze gathers the planner's statistics of every table, several at once, the
// biggest first. Until it has run, readers of the secondary get bad plans.
func (t *Target) Analyze(ctx context.Context) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Parents too: nothing else keeps statistics of a tree as a whole.
	rows, err := conn.Query(ctx, `
		SELECT n.nspname, c.relname
		  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		 WHERE (c.relkind IN ('r', 'p') OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence <> 't'
		   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
		 ORDER BY CASE WHEN c.relkind = 'p' THEN 0 ELSE pg_relation_size(c.oid) END DESC, 1, 2`)
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sqlname.Table])
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	ordinary, err := t.ordinary(ctx)
	if err != nil {
		return err
	}
	var (
		mu   sync.Mutex // guards done
		done int
		todo = make(chan sqlname.Table)
	)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(todo)
		for _, table := range tables {
			select {
			case todo <- table:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(t.workers(), len(tables)) {
		group.Go(func() error {
			conn, err := t.connect(ctx, ordinary...)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for table := range todo {
				// Gone meanwhile is as good as analyzed.
				if _, err := conn.Exec(ctx, "ANALYZE "+table.SQL()); err != nil && pg.SQLState(err) != "42P01" {
					return pg.Classify(err, "analyze "+table.String())
				}
				mu.Lock()
				done++
				t.progress(Progress{Step: "analyze", Done: done, Total: len(tables)})
				mu.Unlock()
			}
			return nil
		})
	}
	return group.Wait()
}
