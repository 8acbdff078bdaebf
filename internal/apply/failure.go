package apply

import (
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// serverProblem is the problem of an error of the server. Messages that may quote
// values (data exceptions, and whatever functions raise) are left out.
func serverProblem(err *pgconn.PgError, op string) error {
	clean := *err
	clean.Detail, clean.Where, clean.InternalQuery = "", "", ""
	if strings.HasPrefix(clean.Code, "22") || strings.HasPrefix(clean.Code, "P0") {
		clean.Message = "the server refused a value"
	}
	return pg.Classify(&clean, op)
}

// commitProblem is the problem of a target transaction that did not commit. The
// changes are gone from memory, so unless the cause passes it is final.
func (e *engine) commitProblem(f *failure, c *commit) error {
	if passing(f) || hopeless(f) {
		return problem.Wrap(serverProblem(f.err, "commit"), problem.Transient, "commit_failed", "commit the changes up to %s", c.position)
	}
	return problem.Wrap(serverProblem(f.err, "commit"), problem.Diverged, "apply_failed", "commit the changes up to %s", c.position).
		WithHint("a deferred constraint or trigger that is enabled on the secondary (ENABLE ALWAYS or REPLICA) refuses them: disable it there, then resume the link")
}

// changeProblem names the change of a batch that cannot be applied.
func (e *engine) changeProblem(b *batch, f *failure) error {
	if f.op < 0 {
		if p := fenceProblem(f, e.someFenced(b), ""); p != nil {
			return p
		}
		return serverProblem(f.err, "apply changes")
	}
	c := &b.plan.Changes()[f.op]
	tx := b.transactionOf(f.op)
	at := fmt.Sprintf("transaction %d, committed at %s", tx.xid, tx.final)
	if c.Op == group.Truncate {
		names := make([]string, len(c.Truncate.Tables))
		for i, t := range c.Truncate.Tables {
			names[i] = e.byTable[t].name.String()
		}
		return problem.Wrap(serverProblem(f.err, "the server refuses"), problem.Diverged, "apply_failed", "TRUNCATE of %s (%s)", strings.Join(names, ", "), at).
			On(names[0]).WithHint("remove what the server names on the secondary, then resume the link")
	}
	r := e.byTable[c.Table]
	what := fmt.Sprintf("%s (%s)", shapeOf(r, c), at)
	subject := r.subject(c)
	if p := fenceProblem(f, r, what); p != nil {
		return p
	}
	switch {
	case f.err == nil && f.got == 0:
		return problem.New(problem.Diverged, "row_missing", "%s finds no row on the secondary", what).On(subject).WithHint(divergedHint)
	case f.err == nil:
		return problem.New(problem.Diverged, "apply_failed", "%s hits %d rows on the secondary instead of %d", what, f.got, f.want).On(subject).
			WithHint("the key is not unique on the secondary; " + divergedHint)
	case f.err.Code == "23505":
		return problem.Wrap(serverProblem(f.err, "the server refuses"), problem.Diverged, "row_duplicate", "%s", what).On(subject).WithHint(divergedHint)
	case f.err.Code == pg.StateUndefinedObject:
		return problem.Wrap(serverProblem(f.err, "the server refuses"), problem.Transient, "object_missing", "%s waits", what).On(subject).WithHint(pg.UndefinedObjectHint)
	case pg.RefusesInfinity(f.err):
		return problem.New(problem.Diverged, "value_too_new", "%s: the secondary's version does not know infinite intervals, and column %s has one", what, strings.Join(r.infinite(c), " or ")).
			On(subject).WithHint("on the primary give the row a finite value, then resume the link with --repair; or have the secondary on version 17 or newer")
	}
	return problem.Wrap(serverProblem(f.err, "the server refuses"), problem.Diverged, "apply_failed", "%s", what).On(subject).
		WithHint("remove the cause on the secondary, then resume the link")
}

// someFenced is a table of a batch at which code of users runs.
func (e *engine) someFenced(b *batch) *relation {
	for _, c := range b.plan.Changes() {
		if r := e.byTable[c.Table]; c.Table != nil && r != nil && r.fence != nil {
			return r
		}
	}
	return nil
}

const divergedHint = "the secondary was written to by somebody else, or the copy is incomplete: make the row there as the primary's was before this change, then resume the link; or delete the link and create it again"

// transactionOf finds the transaction of a change.
func (b *batch) transactionOf(index int) transaction {
	i := sort.Search(len(b.txs), func(i int) bool { return b.txs[i].first > index })
	if i == 0 {
		return transaction{}
	}
	return b.txs[i-1]
}

// shapeOf is a change's statement without values.
func shapeOf(r *relation, c *group.Change) string {
	switch c.Op {
	case group.Insert:
		return "INSERT INTO " + r.name.String()
	case group.Delete:
		return "DELETE FROM " + r.name.String()
	}
	var set []string
	unchanged := group.UnchangedOf(nil, c.New)
	for _, i := range r.written {
		if !unchanged.Has(i) && len(set) < 20 {
			set = append(set, r.columns[i].name)
		}
	}
	return "UPDATE " + r.name.String() + " SET " + strings.Join(set, ", ")
}

// infinite are the columns whose new values have something infinite, of those that may have values which
// this server does not know.
func (r *relation) infinite(c *group.Change) (names []string) {
	for _, i := range r.textOnly {
		if i < c.New.Len && strings.Contains(string(c.New.Column(i).Value), "infinity") {
			names = append(names, r.columns[i].name)
		}
	}
	return names
}

// subject is the table and the key of a change. Of tables without a key only the
// table is named, for there the key would be the row.
func (r *relation) subject(c *group.Change) string {
	if r.keyless() {
		return r.name.String()
	}
	from := c.New
	if c.OldKind != pgoutput.OldNone {
		from = c.Old
	}
	var names, values []string
	for _, k := range r.Key {
		names = append(names, r.columns[k.Column].name)
		values = append(values, r.columns[k.Column].show(from.Column(k.Column)))
	}
	return r.name.String() + " (" + strings.Join(names, ", ") + ") = (" + strings.Join(values, ", ") + ")"
}

// show makes a key's value readable.
func (c *column) show(v pgoutput.Column) string {
	const most = 200
	text := string(v.Value)
	switch v.Kind {
	case pgoutput.Null, pgoutput.Unchanged:
		return "?"
	case pgoutput.Binary:
		text = showBinary(c.typeID, v.Value)
	}
	if !utf8.ValidString(text) {
		text = `\x` + hex.EncodeToString([]byte(text))
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func showBinary(typeID uint32, v []byte) string {
	m := pgtype.NewMap()
	t, ok := m.TypeForOID(typeID)
	if !ok {
		if utf8.Valid(v) {
			return string(v) // enums and most types of extensions
		}
		return `\x` + hex.EncodeToString(v)
	}
	value, err := t.Codec.DecodeDatabaseSQLValue(m, typeID, pgtype.BinaryFormatCode, v)
	if err != nil {
		return `\x` + hex.EncodeToString(v)
	}
	return fmt.Sprint(value)
}

// needsText refuses binary values of types whose binary form is of no use here.
func needsText(r *relation, c *group.Change) error {
	for _, i := range r.textOnly {
		for _, t := range []pgoutput.Tuple{c.New, c.Old} {
			if i < t.Len && t.Column(i).Kind == pgoutput.Binary {
				return problem.New(problem.Transient, "stream_needs_text", "column %s of table %s cannot cross in binary form", r.columns[i].name, r.name).
					On(r.name.String()).WithHint("the link starts the stream again in text form")
			}
		}
	}
	return nil
}

// identityProblem is that of a change whose row cannot be told from others: the stream
// names no key, or one that is none on the secondary.
func identityProblem(r *relation) error {
	var told []string
	for _, c := range r.columns {
		if c.inKey {
			told = append(told, c.name)
		}
	}
	text, hint := "a change of table %s does not say which row it changes", "on the primary, run ALTER TABLE %s REPLICA IDENTITY FULL or give the table a primary key; then delete the link and create it again"
	if len(told) > 0 && r.identity != pgoutput.IdentityFull {
		text = "a change of table %s says which row it changes by (" + sqlname.Join(told) + "), by which the secondary cannot tell rows apart"
		hint = "give the secondary's table the primary's unique index of these columns, then resume the link; where the key has generated columns, which are not sent, run ALTER TABLE %s REPLICA IDENTITY FULL on the primary and resume with --repair"
	}
	return problem.New(problem.Diverged, "identity_missing", text, r.name).On(r.name.String()).WithHint(hint, r.name.SQL())
}
