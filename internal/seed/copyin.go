package seed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// inBuffer gathers what the peer writes: the session sends what one read gives
// as one message.
const inBuffer = 1 << 16

// freezeBytes is the size from which it pays to give a table a new file, so that
// its rows can be written frozen and no VACUUM has to write them once more.
const freezeBytes = 1 << 20

// copying copies chunks over one session of the target database.
type copying struct {
	target   *Target
	conn     *pgx.Conn
	sessions []session // of the primary; the last is the one to copy at
	columns  map[sqlname.Table][]Column
	fenced   *fenced
	pace     *pace // of all workers; nil for no limit
}

func (c *copying) session() *session { return &c.sessions[len(c.sessions)-1] }

// do copies one chunk and records it, in one transaction. moved counts bytes as
// they come.
func (c *copying) do(ctx context.Context, j job, moved *atomic.Int64) error {
	if _, ok := c.columns[j.table.Name]; !ok && len(j.table.Columns) > 0 {
		if j.table.Extended {
			return problem.New(problem.Incompatible, "extension_table_missing", "%s belongs to an extension of the primary's database, and the extension of the secondary's server makes no such table", j.table.Name).
				On(j.table.Name.String()).WithHint("install the package of the same version on the secondary's server; if somebody added the table to the extension: ALTER EXTENSION ... DROP TABLE on the primary; then delete the link and create it again")
		}
		return schemaChanged(j.table.Name, "the twin has no such table")
	}
	binary, err := binaryBetween(j.table.Columns, c.columns[j.table.Name], j.table.Name)
	if err != nil {
		return err
	}
	r := CopyRequest{OID: j.table.OID, Columns: columnNames(j.table.Columns), Binary: binary, First: j.chunk.first, End: j.chunk.end}
	if err := c.exec(ctx, "BEGIN"); err != nil {
		return pg.Classify(err, "begin to copy")
	}
	if err := c.within(ctx, j, r, moved); err != nil {
		// On a connection that is gone it fails, and the server does it.
		_ = c.exec(context.WithoutCancel(ctx), "ROLLBACK")
		return err
	}
	return pg.Classify(c.exec(ctx, "COMMIT"), "commit a chunk of "+j.table.Name.String())
}

// within is do inside of its transaction.
func (c *copying) within(ctx context.Context, j job, r CopyRequest, moved *atomic.Int64) error {
	var rows int64
	var err error
	if j.merge {
		if j.chunk.at > 0 {
			r.Since = c.sessions[j.chunk.at-1].Xmin
		}
		rows, err = c.merge(ctx, j.table, r, moved)
	} else {
		rows, err = c.append(ctx, j, r, moved)
	}
	if err != nil {
		p := problem.As(err)
		if p.Subject == "" {
			p.Subject = j.table.Name.String()
		}
		return p
	}
	return c.record(ctx, j, rows)
}

func (c *copying) exec(ctx context.Context, sql string) error {
	return c.conn.PgConn().Exec(ctx, sql).Close()
}

// append copies a chunk into a table that has no rows of an earlier session.
func (c *copying) append(ctx context.Context, j job, r CopyRequest, moved *atomic.Int64) (int64, error) {
	t := j.table
	if t.Extended {
		if err := c.withoutScriptRows(ctx, t); err != nil {
			return 0, err
		}
	}
	if owner, ok := c.fenced.owners[t.Name]; ok {
		return c.appendFenced(ctx, t, owner, r, moved)
	}
	options := ""
	referred := false
	if len(t.chunks) == 1 && t.Bytes >= freezeBytes && !t.Extended {
		// Not at a first copy; but when tables are copied anew, their constraints are there.
		var err error
		if referred, err = pg.Referred(ctx, c.conn, t.Name.SQL()); err != nil {
			return 0, err
		}
	}
	if len(t.chunks) == 1 && t.Bytes >= freezeBytes && !t.Extended && !referred {
		// FREEZE wants the table emptied by the same transaction.
		if err := c.exec(ctx, "TRUNCATE ONLY "+t.Name.SQL()); err != nil {
			return 0, pg.Classify(err, "empty "+t.Name.String())
		}
		options = ", FREEZE"
	}
	return c.stream(ctx, t.Name.SQL(), t.Name, r, options, moved)
}

// withoutScriptRows removes what the extension's script has put into one of its tables
// on the twin, for the primary's rows of it are copied, those of its script included.
// Until the copy is committed everybody sees the script's: types of PostGIS read
// spatial_ref_sys while rows of other tables are copied.
func (c *copying) withoutScriptRows(ctx context.Context, t *table) error {
	owner, ok := c.fenced.owners[t.Name]
	if !ok {
		return rights.Empty(ctx, c.conn, t.Name, owner, nil)
	}
	return rights.Empty(ctx, c.conn, t.Name, owner, rights.NewRunner(owner.Owner, c.fenced.settings))
}

// staging is the temporary table that rows go over which replace others.
const staging = "pg_temp.twinspan_seed"

// merge copies rows over a temporary table and replaces those with their keys.
func (c *copying) merge(ctx context.Context, t *table, r CopyRequest, moved *atomic.Int64) (int64, error) {
	columns := sqlname.Join(r.Columns)
	// CREATE TABLE AS takes the types and leaves the constraints.
	err := c.exec(ctx, "CREATE TEMPORARY TABLE twinspan_seed ON COMMIT DROP AS SELECT "+columns+" FROM ONLY "+t.Name.SQL()+" WITH NO DATA")
	if err != nil {
		return 0, pg.Classify(err, "make a table for changed rows of "+t.Name.String())
	}
	rows, err := c.stream(ctx, staging, t.Name, r, "", moved)
	if err != nil || rows == 0 {
		return rows, err
	}
	match := make([]string, len(t.Key))
	for i, k := range t.Key {
		match[i] = pg.Equality{Operator: k.Equal, Cast: k.Cast}.Of("t."+sqlname.Quote(k.Name), "s."+sqlname.Quote(k.Name))
	}
	err = c.exec(ctx, "ANALYZE "+staging+"; DELETE FROM ONLY "+t.Name.SQL()+" t USING "+staging+" s WHERE "+strings.Join(match, " AND "))
	if err != nil {
		return 0, pg.Classify(err, "remove the old forms of changed rows of "+t.Name.String())
	}
	err = c.exec(ctx, "INSERT INTO "+t.Name.SQL()+" ("+columns+") OVERRIDING SYSTEM VALUE SELECT "+columns+" FROM "+staging)
	return rows, pg.Classify(err, "insert changed rows of "+t.Name.String())
}

// stream copies the requested rows into a table, quoted, and compares how many
// left with how many arrived.
func (c *copying) stream(ctx context.Context, into string, name sqlname.Table, r CopyRequest, options string, moved *atomic.Int64) (int64, error) {
	format := "text"
	if r.Binary {
		format = "binary"
	}
	columns := ""
	if len(r.Columns) > 0 {
		columns = " (" + sqlname.Join(r.Columns) + ")"
	}
	sql := fmt.Sprintf("COPY %s%s FROM STDIN (FORMAT %s%s)", into, columns, format, options)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	type answer struct {
		rows int64
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		buffered := bufio.NewWriterSize(counter{ctx, writer, c.pace, moved}, inBuffer)
		rows, err := c.target.Remote.Copy(ctx, c.session().Token, r, buffered)
		if err == nil {
			err = buffered.Flush()
		}
		writer.CloseWithError(err)
		answered <- answer{rows, err}
	}()
	tag, err := c.conn.PgConn().CopyFrom(ctx, reader, sql)
	// When the target failed, the other side must not wait for a reader.
	reader.CloseWithError(errReaderGone)
	if err != nil {
		cancel()
	}
	sent := <-answered
	return sent.rows, outcome(name, tag, err, sent.rows, sent.err)
}

// errReaderGone ends the sending of rows that nobody takes.
var errReaderGone = problem.New(problem.Cancelled, "cancelled", "the target takes no more rows")

// outcome judges a copy by what both ends say of it. An error that the server
// reports is the cause of the other end's; a failed source makes the server say
// only that the copy was called off (57014 or 08P01).
func outcome(name sqlname.Table, tag pgconn.CommandTag, in error, sent int64, out error) error {
	if in != nil {
		state := pg.SQLState(in)
		if out != nil && problem.CodeOf(out) != "cancelled" && (state == "" || state == "57014" || state == "08P01") {
			return problem.As(out)
		}
		return targetError(name, in)
	}
	if out != nil {
		return problem.As(out)
	}
	if arrived := tag.RowsAffected(); arrived != sent {
		return problem.New(problem.Diverged, "seed_count", "%d rows of %s were sent and %d arrived", sent, name, arrived).On(name.String()).
			WithHint("look for what drops rows on the twin; then delete the link and create it again")
	}
	return nil
}

// targetError sorts an error of the target's COPY.
func targetError(name sqlname.Table, err error) error {
	state := pg.SQLState(err)
	p := problem.As(pg.Classify(err, "copy into "+name.String()))
	if p.Kind != problem.Internal {
		return p
	}
	switch {
	case state == "42P01" || state == "42703":
		return schemaChanged(name, "the twin's table is another one")
	case state == pg.StateUndefinedObject:
		return problem.Wrap(p, problem.Transient, "object_missing", "the copy of %s waits", name).On(name.String()).WithHint(pg.UndefinedObjectHint)
	case pg.RefusesInfinity(err):
		return problem.New(problem.Incompatible, "value_too_new", "the twin's version does not know infinite intervals, and a row of %s has one%s", name, columnOf(err)).
			On(name.String()).WithHint("on the primary give the rows finite values, then resume the link, which goes on with the copy; or have the secondary on version 17 or newer")
	case strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23"):
		// Its message may quote the value, as its detail does.
		reason := "SQLSTATE " + state
		var e *pgconn.PgError
		if errors.As(err, &e) && e.ConstraintName != "" {
			reason += ", constraint " + e.ConstraintName
		}
		return problem.New(problem.Incompatible, "row_refused", "the twin refuses a row of %s (%s)", name, reason).On(name.String()).
			WithHint("the twin's encoding, its extensions' versions or a CHECK whose function sees other data differ from the primary's; make them alike and try again")
	}
	return p
}

// copyColumn is where COPY says which column it reads (copyfromparse.c); values follow.
var copyColumn = regexp.MustCompile(`^COPY .*, line \d+, column ([^:]+):`)

// columnOf names the column of an error of COPY, in words to be put behind others.
func columnOf(err error) string {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return ""
	}
	if m := copyColumn.FindStringSubmatch(e.Where); m != nil {
		return " in column " + m[1]
	}
	return ""
}

// counter counts what is written, and holds it up to keep a pace.
type counter struct {
	ctx  context.Context
	w    io.Writer
	pace *pace
	n    *atomic.Int64
}

func (c counter) Write(b []byte) (int, error) {
	if c.pace != nil {
		if err := c.pace.wait(c.ctx, len(b)); err != nil {
			return 0, err
		}
	}
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// record marks the chunk as copied at the session, provided that it is as it was
// when the copying began and that no later session has begun.
func (c *copying) record(ctx context.Context, j job, rows int64) error {
	tag, err := c.conn.Exec(ctx, `UPDATE twinspan.seed_chunk SET session = $4, first_session = coalesce(first_session, $4), rows = rows + $5
		WHERE link = $1::text::uuid AND oid = $2 AND number = $3 AND coalesce(session, 0) = $6 AND coalesce(end_block, 0) = $7
		  AND $4 = (SELECT max(session) FROM twinspan.seed_session WHERE link = $1::text::uuid)`,
		c.target.Link, j.table.OID, j.chunk.number, c.session().number, rows, j.chunk.at, j.chunk.end)
	if err != nil {
		return pg.Classify(err, "record a chunk of "+j.table.Name.String())
	}
	if tag.RowsAffected() != 1 {
		return problem.New(problem.Transient, "already_copied", "another agent copied a part of %s at the same time", j.table.Name)
	}
	return nil
}
