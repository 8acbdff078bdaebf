// Package walk makes up histories of a database: types, tables and keys of every shape,
// rows, schema changes, settings and roles, in actions that one seed decides. It is pure: who drives it
// runs each action on a database, and says with Undo when that failed. Many statements fail, for the package
// keeps only a rough picture of the schema; whoever judges runs each action on a database
// without a link beside, which fails alike. Only tests import it.
package walk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// What an action does that is no SQL.
const (
	Link     = "link"            // the link is made here; what comes before is copied
	KillA    = "kill agent a"    // as kill -9, and a start
	KillB    = "kill agent b"    // the same
	FailOver = "fail over"       // the sides change places, as planned
	Compare  = "compare"         // both sides are compared
	Database = "{database name}" // stands in statements for the quoted name of the database
)

// Ends of an action's transaction.
const (
	Commit   = "COMMIT"
	Rollback = "ROLLBACK"
	Prepared = "PREPARE"          // PREPARE TRANSACTION and COMMIT PREPARED
	Withdraw = "ROLLBACK PREPARE" // PREPARE TRANSACTION and ROLLBACK PREPARED
)

// Roles own what a walk makes; none is a superuser. The first owns the database and is a member of the
// second, which is one of the third.
var Roles = []string{"shop", "clerk", "Night crew"}

// Statement is SQL, perhaps of several commands, of one form.
type Statement struct {
	SQL  string
	Form string
	// About are the numbers of the tables that it changes, Of those that it reads besides.
	About, Of map[int]bool
}

// Action is a step of a walk: a session of a role that gives commands.
type Action struct {
	Do       string // when it is no SQL
	Role     string // "" is the superuser, for what only one may do
	Settings []string
	SQL      []Statement
	End      string // when it is a transaction
	Whole    bool   // the commands are sent as one string
}

// Texts returns what is sent, string by string. A prepared transaction gets the name.
func (a Action) Texts(database, transaction string) []string {
	var list []string
	for _, s := range a.SQL {
		list = append(list, strings.ReplaceAll(s.SQL, Database, sqlname.Quote(database)))
	}
	var after []string
	if a.End != "" {
		list = slices.Insert(list, 0, "BEGIN")
		end := a.End
		name := sqlname.Literal(transaction)
		switch a.End {
		case Prepared:
			end, after = "PREPARE TRANSACTION "+name, []string{"COMMIT PREPARED " + name}
		case Withdraw:
			end, after = "PREPARE TRANSACTION "+name, []string{"ROLLBACK PREPARED " + name}
		}
		list = append(list, end)
	}
	if a.Whole {
		list = []string{strings.Join(list, ";\n")}
	}
	return slices.Concat(slices.Clone(a.Settings), list, after)
}

// String is the action as psql takes it.
func (a Action) String() string {
	if a.Do != "" {
		return "-- " + a.Do
	}
	role := a.Role
	if role == "" {
		role = "postgres"
	}
	text := strings.Join(a.Texts("walk", "walk"), ";\n") + ";"
	if a.Whole {
		return fmt.Sprintf("-- as %s, as one string behind its settings\n%s", role, text)
	}
	return fmt.Sprintf("-- as %s\n%s", role, text)
}

// Exclusion is a form that is left out, and why.
type Exclusion struct{ Form, Reason string }

// Walk makes up actions. Its methods are for one goroutine.
type Walk struct {
	rng    *rand.Rand
	state         // the picture of the schema
	before state  // what it was before the last action
	role   string // of the action under way
	kinds  []kind // types of columns
	out    map[string]string
	left   map[string]int
	// Of the statement under way.
	about, of map[int]bool
}

// state is what a walk believes of its schema.
type state struct {
	made   int // names given out
	tables []*table
	enums  []string // labels of walk.mood
	linked bool
}

func (s state) clone() state {
	c := s
	c.tables, c.enums = nil, slices.Clone(s.enums)
	for _, t := range s.tables {
		n := *t
		n.columns, n.indexes, n.views, n.triggers, n.policies = slices.Clone(t.columns), slices.Clone(t.indexes), slices.Clone(t.views), slices.Clone(t.triggers), slices.Clone(t.policies)
		c.tables = append(c.tables, &n)
	}
	return c
}

// New begins a walk on servers of a major release, without the forms that are excluded.
func New(seed uint64, major int, exclusions []Exclusion) *Walk {
	w := &Walk{rng: rand.New(rand.NewPCG(seed, 12)), out: map[string]string{}, left: map[string]int{}}
	for _, e := range exclusions {
		w.out[e.Form] = e.Reason
	}
	for _, k := range kinds {
		if _, out := w.out["type "+k.name]; k.since <= major && !out {
			w.kinds = append(w.kinds, k)
		}
	}
	w.enums = []string{"sad", "ok", "it's fine"}
	w.before = w.state.clone()
	return w
}

// Left says how often each form that is excluded would have been taken.
func (w *Walk) Left() map[string]int { return maps.Clone(w.left) }

// Undo takes the last action back: it failed, or was rolled back.
func (w *Walk) Undo() {
	made := w.made // no name is given out twice
	w.state = w.before.clone()
	w.made = made
}

// Linked says that what comes from now on crosses a link.
func (w *Walk) Linked() { w.linked = true }

// Next returns the next action.
func (w *Walk) Next() Action {
	w.before = w.state.clone()
	a := Action{Role: Roles[w.pick(5, 2, 1)]}
	w.role = a.Role
	a.Settings = w.settings()
	if w.rng.IntN(3) > 0 {
		a.SQL = []Statement{w.statement()}
		return a
	}
	for range 2 + w.rng.IntN(4) {
		a.SQL = append(a.SQL, w.statement())
	}
	a.Whole = w.rng.IntN(3) == 0
	a.End = []string{Commit, Rollback, Prepared, Withdraw, ""}[w.pick(6, 2, 1, 1, 2)]
	if _, out := w.out["prepared transaction"]; out && (a.End == Prepared || a.End == Withdraw) {
		w.left["prepared transaction"]++
		a.End = Commit
	}
	if a.End != "" && w.chance(3) {
		s := &a.SQL[w.rng.IntN(len(a.SQL))]
		w.made++
		s.SQL = saved(fmt.Sprintf("s%d", w.made), s.SQL)
	}
	return a
}

// saved gives a command of a transaction twice, with a savepoint before it to which the first time is rolled back.
func saved(savepoint, sql string) string {
	return fmt.Sprintf("SAVEPOINT %[1]s; %[2]s; ROLLBACK TO SAVEPOINT %[1]s; %[2]s; RELEASE SAVEPOINT %[1]s", savepoint, sql)
}

// pick returns an index, as often as its weight says.
func (w *Walk) pick(weights ...int) int {
	sum := 0
	for _, n := range weights {
		sum += n
	}
	at := w.rng.IntN(sum)
	for i, n := range weights {
		if at -= n; at < 0 {
			return i
		}
	}
	return len(weights) - 1
}

func one[T any](w *Walk, list []T) T { return list[w.rng.IntN(len(list))] }

func (w *Walk) chance(of int) bool { return w.rng.IntN(of) == 0 }

// name returns a new name, now and then one that has to be quoted.
func (w *Walk) name(prefix string) string {
	w.made++
	name := fmt.Sprintf("%s%d", prefix, w.made)
	if w.chance(6) {
		name = one(w, []string{`A "b" `, "it's ", "é ", "Select ", `c:\`}) + name
	}
	return name
}

func q(name string) string { return sqlname.Quote(name) }

// statement makes up a statement of a form that is fit for now.
func (w *Walk) statement() Statement {
	for {
		w.about, w.of = map[int]bool{}, map[int]bool{}
		f := forms[w.pick(weights...)]
		if len(w.tables) < 4 {
			f = forms[0]
		}
		if _, out := w.out[f.name]; out {
			w.left[f.name]++
			continue
		}
		var parts []string
		for _, sql := range f.make(w) {
			if sql == "" {
				parts = nil
				break
			}
			parts = append(parts, sql)
		}
		if len(parts) == 0 {
			continue
		}
		return Statement{SQL: w.wrapped(f, strings.Join(parts, "; ")), Form: f.name, About: w.about, Of: w.of}
	}
}

// wrapped gives the commands as they are, or inside of something that gives them.
func (w *Walk) wrapped(f form, sql string) string {
	if f.plain {
		return sql
	}
	body := sql
	w.made++
	tag := fmt.Sprintf("$w%d$", w.made)
	switch w.pick(20, 2, 1, 1, 1) {
	case 1:
		return fmt.Sprintf("DO %[1]s BEGIN %[2]s; END %[1]s", tag, body)
	case 2:
		return fmt.Sprintf("DO %[1]s BEGIN EXECUTE %[3]s%[2]s%[3]s; END %[1]s", tag, body, "$e$")
	case 3: // with a subtransaction that is rolled back, and what it did made again
		return fmt.Sprintf("DO %[1]s BEGIN BEGIN %[2]s; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END; %[2]s; END %[1]s", tag, body)
	case 4:
		f := w.name("f")
		return fmt.Sprintf("CREATE FUNCTION %[1]s() RETURNS void LANGUAGE plpgsql AS %[3]s BEGIN %[2]s; END %[3]s; SELECT %[1]s()", "walk."+q(f), body, tag)
	}
	return sql
}

// Forms lists the names of all forms.
func Forms() []string {
	var list []string
	for _, f := range forms {
		list = append(list, f.name)
	}
	return list
}
