package rights

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Writer writes the rows of tables in a transaction. Where code of users runs at a table, it is
// written with the rights of the table's owner (docs/design/0017-rights.md). The session must be
// one of pg.Session{Apply: true, Fenced: true}.
type Writer struct {
	TX   pgx.Tx
	DSN  *pg.DSN // of the database
	Link string  // the link's name, for the session that reads an ordinary session's settings

	settings []Setting
	read     bool // the settings are
}

// Writable is a table that is written.
type Writable struct {
	*Writer
	name  sqlname.Table
	table Table
	// The runners are nil where no code of users runs. finder is for what finds rows, under
	// settings of its own; runner for what makes rows.
	finder, runner *Runner
}

// Table locks a table, so that neither what it is nor what runs at it changes until the
// transaction ends, and looks at both. Rows are found under the settings finding.
func (w *Writer) Table(ctx context.Context, name sqlname.Table, finding ...Setting) (*Writable, error) {
	if _, err := w.TX.Exec(ctx, "LOCK TABLE ONLY "+name.SQL()+" IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		return nil, pg.Classify(err, "lock "+name.String())
	}
	var oid uint32
	var is, money bool
	err := w.TX.QueryRow(ctx, `SELECT c.oid, c.relkind = 'r', EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.atttypid = 'pg_catalog.money'::pg_catalog.regtype AND NOT a.attisdropped)
		FROM pg_catalog.pg_class c WHERE c.oid = `+sqlname.Literal(name.SQL())+`::pg_catalog.regclass`).Scan(&oid, &is, &money)
	if err != nil {
		return nil, pg.Classify(err, "look at "+name.String())
	}
	if !is {
		return nil, problem.New(problem.Transient, "table_changed", "it is another kind of object by now").On(name.String())
	}
	all, err := Of(ctx, w.TX.Conn(), []uint32{oid})
	if err != nil {
		return nil, err
	}
	t := &Writable{Writer: w, name: name, table: all[oid]}
	if !t.table.Code {
		return t, nil
	}
	if !w.read {
		if w.settings, err = Ordinary(ctx, w.DSN, w.Link); err != nil {
			return nil, err
		}
		w.read = true
	}
	kept := []string(nil)
	if money {
		kept = []string{"lc_monetary"} // its input function goes by it
	}
	t.runner = NewRunner(t.table.Owner, Without(w.settings, kept...))
	t.finder = NewRunner(t.table.Owner, finding)
	return t, nil
}

// Fenced says whether code of users runs at the table: then SQL on it has its values as literals,
// and reads nothing but what the table's owner may read.
func (t *Writable) Fenced() bool { return t.runner != nil }

// Remove runs one statement that deletes rows of the table; done is what it does.
func (t *Writable) Remove(ctx context.Context, sql, done string) error {
	return t.exec(ctx, t.finder, sql, done)
}

// Empty removes all rows of the table alone, whatever refers to it.
func (t *Writable) Empty(ctx context.Context) error {
	return Empty(ctx, t.TX, t.name, t.table, t.finder)
}

// Empty is Writable.Empty for a table that is known, in a transaction: r is the runner of
// its owner, nil where no code of users runs.
func Empty(ctx context.Context, q pg.Emptier, name sqlname.Table, table Table, r *Runner) error {
	referred, err := pg.Referred(ctx, q, name.SQL())
	if err != nil {
		return err
	}
	if referred {
		return run(ctx, q, name, table, r, "DELETE FROM ONLY "+name.SQL(), "empty "+name.String())
	}
	_, err = q.Exec(ctx, "TRUNCATE ONLY "+name.SQL()) // plans nothing, and so runs no code
	return pg.Classify(err, "empty "+name.String())
}

func (t *Writable) exec(ctx context.Context, r *Runner, sql, done string) error {
	return run(ctx, t.TX, t.name, t.table, r, sql, done)
}

func run(ctx context.Context, q pg.Emptier, name sqlname.Table, table Table, r *Runner, sql, done string) error {
	if r == nil {
		_, err := q.Exec(ctx, sql)
		return pg.Classify(err, done)
	}
	return RunFenced(ctx, q, r, table.Around("ONLY "+name.SQL(), r.Run(sql, name)), name.String(), done)
}

// RunFenced runs statements of a runner in a transaction, and looks that nothing is left
// to run at its end.
func RunFenced(ctx context.Context, tx pg.Emptier, r *Runner, list []string, subject, done string) error {
	for _, s := range append(append(r.Make(), list...), Check) {
		_, err := tx.Exec(ctx, s)
		if err == nil {
			continue
		}
		if p := Problem(err, r.Role(), subject); p != nil {
			return p
		}
		if pg.SQLState(err) == "42501" {
			return problem.Wrap(pg.Classify(err, "the server refuses"), problem.Incompatible, "owner_lacks_right", "%s with the rights of role %s, who owns the table", done, r.Role()).
				On(subject).WithHint("functions of users run there, so it is done with the owner's rights: on the secondary, GRANT role %s the right that the server names, as on the primary, then try again", r.Role())
		}
		return pg.Classify(err, done)
	}
	return nil
}

// insertSize is about how much SQL inserts rows at once.
const insertSize = 256 << 10

// Insert writes rows that come as COPY's text form, by INSERTs whose values are literals:
// the types' input functions read them inside of the fence, and no cast of a user's.
func (t *Writable) Insert(ctx context.Context, columns []string, rows io.Reader) error {
	head := "INSERT INTO " + t.name.SQL() + " (" + sqlname.Join(columns) + ") OVERRIDING SYSTEM VALUE VALUES "
	if len(columns) == 0 { // all are generated
		head = "INSERT INTO " + t.name.SQL() + " "
	}
	sql := []byte(head)
	flush := func() error {
		if len(sql) == len(head) {
			return nil
		}
		err := t.exec(ctx, t.runner, string(sql), "insert the primary's rows")
		sql = append(sql[:0], head...)
		return err
	}
	lines := bufio.NewReaderSize(rows, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > 0 {
			if len(sql) > len(head) {
				sql = append(sql, ',')
			}
			sql = appendRow(sql, bytes.TrimSuffix(line, []byte{'\n'}))
		}
		if len(columns) == 0 && len(line) > 0 {
			sql = append(append(sql[:0], head...), "DEFAULT VALUES"...)
			if failed := flush(); failed != nil {
				return failed
			}
		}
		if len(sql) >= insertSize || err != nil {
			if failed := flush(); failed != nil {
				return failed
			}
		}
		if err != nil {
			return nil
		}
	}
}

// appendRow appends a line of COPY's text form (manual, "COPY", "Text Format") as a row of
// literals.
func appendRow(sql, line []byte) []byte {
	sql = append(sql, '(')
	for i, field := range bytes.Split(line, []byte{'\t'}) {
		if i > 0 {
			sql = append(sql, ',')
		}
		if string(field) == `\N` {
			sql = append(sql, "NULL"...)
			continue
		}
		sql = AppendLiteral(sql, unescaped(field))
	}
	return append(sql, ')')
}

// unescaped undoes what COPY TO does to a value (copyto.c, CopyAttributeOutText).
func unescaped(field []byte) []byte {
	if bytes.IndexByte(field, '\\') < 0 {
		return field
	}
	const letters, meant = "bfnrtv", "\b\f\n\r\t\v"
	value := make([]byte, 0, len(field))
	for i := 0; i < len(field); i++ {
		c := field[i]
		if c == '\\' && i+1 < len(field) {
			i++
			c = field[i]
			if at := strings.IndexByte(letters, c); at >= 0 {
				c = meant[at]
			}
		}
		value = append(value, c)
	}
	return value
}
