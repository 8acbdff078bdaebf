package apply

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
)

// fence is how a table with code of users is written: with the rights of its owner, and
// under the settings of an ordinary session of the database (docs/design/0017-rights.md).
// Statements are the same as everywhere else; their values stand in them as literals,
// which the types' input functions read inside.
type fence struct {
	runner      *rights.Runner
	made        bool // in the session, as far as was sent
	prove, call *statement
	owner       string
}

// fences are the session's fences, and what they are made of.
type fences struct {
	list     map[string]*fence // by owner and kind
	own      *fence            // of the agent's role, for the settings alone
	settings []rights.Setting
	sign     string // what the settings were read at
	read     bool
	used     bool // in the target transaction since its last check
	leave    []*statement
	check    *statement
}

func newFences() fences {
	f := fences{list: map[string]*fence{}, check: &statement{sql: rights.Check}}
	for _, sql := range rights.Leave() {
		f.leave = append(f.leave, &statement{sql: sql})
	}
	return f
}

// undone forgets what was made in a transaction that is rolled back.
func (f *fences) undone() {
	f.used = false
	for _, x := range f.list {
		x.made = false
	}
}

// protect looks whether code of users runs at a relation's table, and gives the relation
// its fence if so.
func (e *engine) protect(ctx context.Context, r *relation, oid uint32) error {
	r.fence, r.forced, r.lent = nil, false, rights.Lent{}
	rows, err := e.ask(ctx, rights.TableSQL, "{"+strconv.FormatUint(uint64(oid), 10)+"}")
	if err != nil || len(rows) == 0 || !truth(rows[0][3]) {
		return err
	}
	kept := []string(nil)
	for _, c := range r.columns {
		if c.typeID == moneyOID {
			// Its input function goes by it; the stream has values as under C.
			kept = append(kept, "lc_monetary")
			break
		}
	}
	if r.fence, err = e.fenceOf(ctx, string(rows[0][1]), kept...); err != nil {
		return err
	}
	if e.fences.own, err = e.fenceOf(ctx, e.a.DSN.User()); err != nil {
		return err
	}
	r.forced = truth(rows[0][2])
	if rows, err = e.ask(ctx, rights.LentSQL, "{"+strconv.FormatUint(uint64(oid), 10)+"}"); err != nil {
		return err
	}
	for _, row := range rows {
		r.lent.Add(truth(row[1]), string(row[2]))
	}
	r.textOnly = r.written // literals are text
	return nil
}

// moneyOID is the type money.
const moneyOID = 790

// fenceOf is the session's fence of a role; kept are settings that stay the agent's.
func (e *engine) fenceOf(ctx context.Context, role string, kept ...string) (*fence, error) {
	rows, err := e.ask(ctx, rights.SignSQL)
	if err != nil {
		return nil, err
	}
	f := &e.fences
	if sign := string(rows[0][0]); !f.read || f.sign != sign {
		if f.settings, err = rights.Ordinary(ctx, e.a.DSN, e.a.Link); err != nil {
			return nil, err
		}
		f.read, f.sign = true, sign
		clear(f.list)
	}
	key := role + "\x00" + strings.Join(kept, ",")
	if f.list[key] == nil {
		r := rights.NewRunner(role, rights.Without(f.settings, kept...))
		f.list[key] = &fence{runner: r, owner: role, prove: &statement{sql: r.Prove()}, call: &statement{sql: r.Call()}}
	}
	return f.list[key], nil
}

// fenced sends SQL to be run inside of a fence; it must report the rows. Policies would
// bind an owner who is under FORCE ROW LEVEL SECURITY: for the moment of the statement
// he is not, which nobody else sees.
func (w *writer) fenced(x *fence, r *relation, sql []byte, op int, want int64) {
	s := w.s
	w.unchecked = true // the check before the commit is a statement of its own
	w.fences.used = true
	if !x.made {
		for _, make := range x.runner.Make() {
			s.exec(make, op, anyCount)
		}
		x.made = true
	}
	if r != nil {
		for _, sql := range r.lent.Lend {
			s.exec(sql, op, anyCount)
		}
		if r.forced {
			s.exec("ALTER TABLE "+r.only+r.name.SQL()+" NO FORCE ROW LEVEL SECURITY", op, anyCount)
		}
	}
	s.prepare(x.prove, op)
	pass := pg.FullPass // the statement is the server's alone: TRUNCATE
	if r != nil {
		pass = pg.Ticket(r.oid)
	}
	s.bindText(x.prove.name, []byte(pass))
	s.execute(op, anyCount)
	s.prepare(x.call, op)
	s.bindText(x.call.name, sql)
	s.execute(op, want)
	for _, st := range w.fences.leave {
		s.prepare(st, op)
		s.bindNothing(st.name)
		s.execute(op, anyCount)
	}
	if r != nil {
		if r.forced {
			s.exec("ALTER TABLE "+r.only+r.name.SQL()+" FORCE ROW LEVEL SECURITY", op, anyCount)
		}
		for _, sql := range r.lent.Back {
			s.exec(sql, op, anyCount)
		}
	}
}

// checkFences makes sure that nothing of users' code is left to be run at the commit.
func (e *engine) checkFences() {
	if !e.fences.used {
		return
	}
	e.fences.used = false
	e.s.prepare(e.fences.check, opFence)
	e.s.bindNothing(e.fences.check.name)
	e.s.execute(opFence, anyCount)
}

// bindText binds one parameter, a text.
func (s *session) bindText(name string, v []byte) {
	at := s.message('B')
	s.out = append(s.out, 0)
	s.out = append(s.out, name...)
	s.out = append(s.out, 0, 0, 0, 0, 1)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(v)))
	if len(v) < largeValue {
		s.out = append(s.out, v...)
		s.out = append(s.out, 0, 0)
		s.end(at)
		return
	}
	binary.BigEndian.PutUint32(s.out[at:], uint32(len(s.out)-at+len(v)+2))
	large := s.large // v is no part of a message of the stream
	s.large = nil
	s.writeLarge(v)
	s.large = large
	s.out = append(s.out, 0, 0)
}

// literals writes a statement with values in the place of its parameters.
func literals(dst []byte, sql string, value func(dst []byte, parameter int) []byte) []byte {
	for i := 0; i < len(sql); i++ {
		switch c := sql[i]; {
		case c == '"' || c == '\'': // a doubled one ends and begins
			end := i + 1 + strings.IndexByte(sql[i+1:], c)
			dst = append(dst, sql[i:end+1]...)
			i = end
		case c == '$':
			n := 0
			for i+1 < len(sql) && sql[i+1] >= '0' && sql[i+1] <= '9' {
				i++
				n = 10*n + int(sql[i]-'0')
			}
			dst = value(dst, n-1)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendValue appends a column of a tuple in text form as a literal.
func appendValue(dst []byte, c pgoutput.Column) []byte {
	if c.Kind != pgoutput.Text {
		return append(dst, "NULL"...)
	}
	return rights.AppendLiteral(dst, c.Value)
}

// fencedSingle sends a statement for one row, whose columns are in w.columns.
func (w *writer) fencedSingle(r *relation, st *statement, op int, want int64) {
	w.sql = literals(w.sql[:0], st.sql, func(dst []byte, i int) []byte { return appendValue(dst, w.columns[i]) })
	w.fenced(r.fence, r, w.sql, op, want)
	w.shrink()
}

// fencedSet sends a set-based statement; see counted.
func (w *writer) fencedSet(r *relation, st *statement, rows []group.Row, counts []int, want int64) {
	w.sql = literals(w.sql[:0], st.sql, func(dst []byte, i int) []byte {
		dst = append(dst, "ARRAY["...)
		if i == len(st.params) {
			for n, c := range counts {
				dst = strconv.AppendInt(comma(dst, n), int64(c), 10)
			}
			return append(dst, ']')
		}
		for n, row := range rows {
			dst = appendValue(comma(dst, n), columnAt(row, st.params[i].column))
		}
		return append(dst, ']')
	})
	w.fenced(r.fence, r, w.sql, opSet, want)
	w.shrink()
}

// fencedInserts sends rows as INSERTs of many.
func (w *writer) fencedInserts(r *relation, rows []group.Row) {
	const most = 256 << 10 // about, of SQL at once
	head := "INSERT INTO " + r.name.SQL() + " (" + r.names(r.written) + ") OVERRIDING SYSTEM VALUE VALUES "
	for len(rows) > 0 {
		w.sql = append(w.sql[:0], head...)
		n := 0
		for ; n < len(rows) && n < maxRows && len(w.sql) < most; n++ {
			w.sql = append(comma(w.sql, n), '(')
			w.new = split(w.new, rows[n])
			for i, c := range r.written {
				w.sql = appendValue(comma(w.sql, i), w.new[c])
			}
			w.sql = append(w.sql, ')')
		}
		w.fenced(r.fence, r, w.sql, opSet, int64(n))
		rows = rows[n:]
	}
	w.shrink()
}

// shrink gives up the memory of an unusually large statement.
func (w *writer) shrink() {
	if cap(w.sql) > 64*writeSize {
		w.sql = nil
	}
}

func comma(dst []byte, n int) []byte {
	if n > 0 {
		dst = append(dst, ',')
	}
	return dst
}

// columnAt is one column of a tuple.
func columnAt(b []byte, column int) pgoutput.Column {
	c, rest := pgoutput.Next(b)
	for ; column > 0; column-- {
		c, rest = pgoutput.Next(rest)
	}
	return c
}

// plain sends a statement without values, through the fence where the relation has one.
func (e *engine) plain(r *relation, sql string, op int) {
	if r.fence == nil {
		e.s.exec(sql, op, anyCount)
		return
	}
	e.w.fenced(r.fence, r, []byte(sql), op, anyCount)
}

// emptying are the statements of a script that removes all rows of a table and leaves
// every other alone, also those that refer to it.
func (r *relation) emptying() []string {
	if r.fence == nil {
		return []string{r.emptySQL()}
	}
	list := slices.Concat(r.fence.runner.Make(), r.fence.runner.Run(r.emptySQL(), r.name), []string{rights.Check})
	return rights.Table{Forced: r.forced, Lent: r.lent}.Around(r.only+r.name.SQL(), list)
}

// fenceProblem is the problem of an error that comes of a table's fence; nil where the
// error is one like others. r may be nil.
func fenceProblem(f *failure, r *relation, what string) error {
	if f.err == nil {
		return nil
	}
	role, subject := "", ""
	if r != nil && r.fence != nil {
		role, subject = r.fence.owner, r.name.String()
	}
	if p := rights.Problem(f.err, role, subject); p != nil {
		return p
	}
	if role == "" || f.err.Code != "42501" {
		return nil
	}
	return problem.Wrap(serverProblem(f.err, "the server refuses"), problem.Diverged, "owner_lacks_right", "%s with the rights of role %s, who owns the table", what, role).
		On(subject).WithHint("functions of users run when a row of this table is written, so rows are applied with its owner's rights: on the secondary, GRANT role %s the right that the server names, as on the primary (USAGE of a schema, EXECUTE of a function, INSERT, UPDATE, DELETE and SELECT of the table), then resume the link", role)
}
