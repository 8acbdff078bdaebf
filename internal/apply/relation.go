package apply

import (
	"bytes"
	"context"
	"time"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// role says what becomes of a relation's changes.
type role uint8

const (
	ordinary role = iota
	ignored       // the agents' own tables
	signals       // twinspan.signal
)

// relation is a table as the stream describes it and, once a change needs it, as
// the secondary has it. It embeds what planning knows of it.
type relation struct {
	group.Table
	role      role
	name      sqlname.Table
	identity  byte
	message   []byte // the Relation message, for comparing
	columns   []column
	id        uint32  // on the primary
	modifiers []int32 // of the columns' types there

	resolved bool
	oid      uint32        // on the secondary
	rootOID  uint32        // of root
	gone     bool          // the primary does not have it any more, and no command has made it here
	missing  bool          // the secondary does not have it; it may come later in its transaction
	only     string        // "ONLY " for tables, nothing for partitioned ones
	order    group.Order   // what its shape demands
	written  []int         // columns that are written: all but generated ones
	root     sqlname.Table // where generated identities are declared
	always   []int         // columns GENERATED ALWAYS AS IDENTITY
	textOnly []int         // columns whose binary form means nothing here
	fence    *fence        // what its rows are written through, nil usually
	forced   bool          // its owner is bound by its policies
	lent     rights.Lent   // what its owner lacks for writing it

	skipBefore, repair lsn.LSN
	orderedUntil       time.Time     // folding failed lately
	penalty            time.Duration // for how long, the next time

	statements map[string]*statement
	setSince   int // rows written since set-based statements were planned
	setLimit   int // plan them again from here on
}

// column is a published column of a relation.
type column struct {
	name     string
	sourceID uint32 // type on the primary
	inKey    bool   // of the replica identity

	number    int    // attnum on the secondary
	typ       string // SQL name of its type there, domains resolved
	typeID    uint32
	array     string // SQL name of the type's array, "" if it has none
	domain    bool   // its declared type is a domain over typ
	textFrom  string // the string type from which typ's input function reads in set-based statements; "" for none
	equality         // of its type; of the key's index where it is in the key
	canon     group.Canon
	foldable  bool // canon is all of its equality
	generated bool
	always    bool // GENERATED ALWAYS AS IDENTITY
	notNull   bool
}

// keyless says whether the relation's rows can only be told apart by all columns.
func (r *relation) keyless() bool { return len(r.Key) == 0 }

// statement returns the cached statement of a shape, making it when it is new.
func (r *relation) statement(shape []byte, build func() *statement) *statement {
	st := r.statements[string(shape)]
	if st == nil {
		st = build()
		r.statements[string(shape)] = st
	}
	return st
}

// describe takes a Relation message.
func (e *engine) describe(msg []byte, m *pgoutput.Relation) {
	if old := e.relations[m.ID]; old != nil {
		if bytes.Equal(old.message, msg) {
			return
		}
		e.current.plan.Append(group.Change{Op: group.Barrier})
	}
	schema := string(m.Schema)
	if schema == "" {
		schema = "pg_catalog"
	}
	r := &relation{
		name: sqlname.Table{Schema: schema, Name: string(m.Name)}, identity: m.Identity,
		message: bytes.Clone(msg), statements: map[string]*statement{}, id: m.ID,
	}
	if schema == "twinspan" {
		r.role = ignored
		if r.name.Name == "signal" {
			r.role = signals
		}
	}
	for _, c := range m.Columns {
		r.columns = append(r.columns, column{name: string(c.Name), sourceID: c.TypeID, inKey: c.Key})
		r.modifiers = append(r.modifiers, c.Modifier)
	}
	r.skipBefore, r.repair = e.a.SkipBefore[r.name], e.a.Repair[r.name]
	e.relations[m.ID] = r
	e.lastRelation, e.lastRelationID = r, m.ID
}

// relation finds the relation of a change.
func (e *engine) relation(id uint32) (*relation, error) {
	if e.lastRelation != nil && e.lastRelationID == id {
		return e.lastRelation, nil
	}
	r := e.relations[id]
	if r == nil {
		return nil, corrupt("a change of relation %d, which was not described", id)
	}
	e.lastRelation, e.lastRelationID = r, id
	return r, nil
}

// resolve looks the relation up on the secondary.
func (e *engine) resolve(ctx context.Context, r *relation) error {
	if err := e.settle(ctx); err != nil {
		return err
	}
	t, err := e.look(ctx, r.name)
	if err != nil {
		return err
	}
	r.missing = t == nil
	if r.missing {
		return nil
	}
	if err := r.match(t); err != nil {
		return err
	}
	if err := e.protect(ctx, r, t.oid); err != nil {
		return err
	}
	r.resolved = true
	r.skipBefore, r.repair = max(r.skipBefore, e.a.SkipTables[t.oid]), max(r.repair, e.a.RepairTables[t.oid])
	e.byTable[&r.Table] = r
	return nil
}

const schemaHint = "twinspan link resume NAME --repair makes the secondary's table like the primary's and goes on"

// match maps the stream's columns to the target's by name.
func (r *relation) match(t *target) error {
	differs := func(text string, args ...any) error {
		return problem.New(problem.Diverged, "schema_differs", text, args...).On(r.name.String()).WithHint(schemaHint)
	}
	if t == nil || t.kind != "r" && t.kind != "p" {
		return differs("table %s is missing on the secondary", r.name)
	}
	seen := map[string]bool{}
	for i := range r.columns {
		c := &r.columns[i]
		there, ok := t.columns[c.name]
		if !ok {
			return differs("column %s of table %s is missing on the secondary", sqlname.Quote(c.name), r.name)
		}
		seen[c.name] = true
		there.name, there.sourceID, there.inKey = c.name, c.sourceID, c.inKey
		*c = there.column
		if c.generated {
			continue
		}
		r.written = append(r.written, i)
		if c.always {
			r.always = append(r.always, i)
		}
		other := c.sourceID < firstNormalOID && c.sourceID != c.typeID || c.sourceID >= firstNormalOID && there.declaredID < firstNormalOID
		if there.textOnly || other {
			r.textOnly = append(r.textOnly, i)
		}
	}
	for name, c := range t.columns {
		if !seen[name] && !c.generated {
			return differs("the secondary's table %s has a column %s that the primary's has not", r.name, sqlname.Quote(name))
		}
	}
	if t.kind == "r" {
		r.only = "ONLY "
	}
	r.root, r.oid, r.rootOID = t.root, t.oid, t.rootOID
	r.chooseKey(t)
	return nil
}

// chooseKey decides by which columns rows are found, and how far their changes
// may be rearranged. What is a key is for the secondary's catalogs to say: what the
// stream calls one may be a part of it: generated columns are not sent before version 18.
func (r *relation) chooseKey(t *target) {
	r.Key = nil
	r.order = group.Fold
	byNumber := map[int]int{}
	told := 0
	for i := range r.columns {
		byNumber[r.columns[i].number] = i
		if r.columns[i].inKey {
			told++
		}
	}
	for _, k := range t.keys {
		if !r.fits(k, byNumber, told) {
			continue
		}
		for _, c := range k {
			i := byNumber[c.number]
			col := &r.columns[i]
			q := col.below(c.equality)
			if q.operator != col.operator || q.collate != "" {
				col.foldable = false // canon is of the type's own equality
			}
			col.equality = q
			r.Key = append(r.Key, group.KeyColumn{Column: i, Canon: col.canon})
			if !col.foldable {
				r.order = group.Rows
			}
		}
		break
	}
	if r.keyless() && r.identity != pgoutput.IdentityFull || t.exclusion {
		r.order = group.Rows
	}
	if t.triggers {
		r.order = group.Strict
	}
	r.Table.Order = r.order
}

// fits says whether a key of the secondary's table can be used: all of it is in the
// stream, and what the stream calls the key is it, unless the old row comes whole.
func (r *relation) fits(k targetKey, byNumber map[int]int, told int) bool {
	for _, c := range k {
		i, ok := byNumber[c.number]
		if !ok || r.identity != pgoutput.IdentityFull && !r.columns[i].inKey {
			return false
		}
	}
	return r.identity == pgoutput.IdentityFull || len(k) == told
}

// penalise keeps the relation from being folded for a while: its rows hold unique
// values that passing states of folding violate.
func (r *relation) penalise(now time.Time) {
	const first, most = time.Minute, time.Hour
	r.penalty = min(max(first, r.penalty*2), most)
	r.orderedUntil = now.Add(r.penalty)
	r.Table.Order = max(r.order, group.Rows)
}

// forgive lets the relation be folded again, and says so, when its time is over.
func (r *relation) forgive(now time.Time) bool {
	if now.Before(r.orderedUntil) {
		return false
	}
	r.Table.Order = r.order
	return true
}

// corrupt is the problem of a stream that cannot be understood.
func corrupt(text string, args ...any) error {
	return problem.New(problem.Internal, "stream_corrupt", "the stream holds "+text, args...)
}
