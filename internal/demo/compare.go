package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// compared is one table, and how many rows it has or only one side has.
type compared struct {
	name      string
	rows      int64 // equal on both sides
	different int64 // on one side only; a changed row counts twice
}

// compare reads every table of both sides in the same order and compares row by
// row. Partitions are compared through their table.
func compare(ctx context.Context, dsnA, dsnB string) ([]compared, error) {
	tablesA, err := tables(ctx, dsnA)
	if err != nil {
		return nil, err
	}
	tablesB, err := tables(ctx, dsnB)
	if err != nil {
		return nil, err
	}
	if len(tablesA) != len(tablesB) {
		return nil, problem.New(problem.Diverged, "demo_differs", "a has %d tables, b has %d", len(tablesA), len(tablesB))
	}
	var all []compared
	for i, t := range tablesA {
		if tablesB[i] != t {
			return nil, problem.New(problem.Diverged, "demo_differs", "the tables differ: %s and %s", t, tablesB[i])
		}
		c, err := compareTable(ctx, dsnA, dsnB, t)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func tables(ctx context.Context, dsn string) ([]sqlname.Table, error) {
	conn, err := connect(ctx, dsn)
	if err != nil {
		return nil, problem.Wrap(err, problem.Transient, "connection_lost", "connect to compare")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'twinspan')
		ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`)
	if err != nil {
		return nil, problem.Wrap(err, problem.Internal, "demo_sql", "list the tables")
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sqlname.Table])
	if err != nil {
		return nil, problem.Wrap(err, problem.Internal, "demo_sql", "list the tables")
	}
	return list, nil
}

func compareTable(ctx context.Context, dsnA, dsnB string, t sqlname.Table) (compared, error) {
	c := compared{name: t.String()}
	group, ctx := errgroup.WithContext(ctx)
	readA, writeA := io.Pipe()
	readB, writeB := io.Pipe()
	group.Go(func() error { return copyOut(ctx, dsnA, t, writeA) })
	group.Go(func() error { return copyOut(ctx, dsnB, t, writeB) })
	group.Go(func() error {
		err := merge(readA, readB, &c)
		// Whoever still writes is told to end.
		return errors.Join(err, readA.CloseWithError(err), readB.CloseWithError(err))
	})
	return c, group.Wait()
}

// copyOut writes the rows of a table as text, one a line, in an order that both
// sides share whatever their collations are.
func copyOut(ctx context.Context, dsn string, t sqlname.Table, w *io.PipeWriter) (err error) {
	defer func() { w.CloseWithError(err) }()
	conn, err := connect(ctx, dsn)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "connection_lost", "connect to compare")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	sql := `SET search_path = ''; SET timezone = 'UTC'; SET extra_float_digits = 3`
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "read %s", t)
	}
	_, err = conn.PgConn().CopyTo(ctx, w, `COPY (SELECT x FROM (SELECT r::text AS x FROM `+t.SQL()+` r) s ORDER BY x COLLATE "C") TO STDOUT`)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "read %s", t)
	}
	return nil
}

// merge walks through two ordered lists of lines.
func merge(a, b io.Reader, c *compared) error {
	linesA, linesB := newLines(a), newLines(b)
	for {
		textA, errA := linesA.peek()
		textB, errB := linesB.peek()
		if errA != nil && errA != io.EOF || errB != nil && errB != io.EOF {
			return errors.Join(errA, errB)
		}
		switch {
		case errA == io.EOF && errB == io.EOF:
			return nil
		case errB == io.EOF || errA == nil && bytes.Compare(textA, textB) < 0:
			c.different++
			linesA.next()
		case errA == io.EOF || bytes.Compare(textA, textB) > 0:
			c.different++
			linesB.next()
		default:
			c.rows++
			linesA.next()
			linesB.next()
		}
	}
}

// lines is a reader that looks one line ahead.
type lines struct {
	r    *bufio.Reader
	line []byte
	err  error
	full bool
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 1<<16)} }

func (l *lines) peek() ([]byte, error) {
	if !l.full {
		l.line, l.err = l.r.ReadBytes('\n')
		l.full = true
	}
	return l.line, l.err
}

func (l *lines) next() { l.full = false }
