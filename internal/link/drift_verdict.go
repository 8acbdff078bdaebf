package link

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/verify"
)

// weight is what a difference means to the link.
type weight int

const (
	harmless weight = iota // versions of extensions: each server has its own
	known                  // it was there after the copy, or is accepted
	unclear                // words whose meaning nobody can compare; the order of columns
	warned                 // event triggers, commands on which no event trigger sees
	mends                  // an index, which the link builds
	passes                 // an owner, who becomes it on the twin, too
	makes                  // a relation that no event trigger saw
	serious
)

// weigh judges one difference.
func weigh(d verify.SchemaDifference, watch catalog.Watch) weight {
	drift := driftOf(d)
	switch {
	case slices.ContainsFunc(watch.Known, drift.Same):
		return known
	case d.Kind == "extension" && d.State == verify.Differs:
		return harmless
	case d.Undecided, d.Kind == "column order" && d.State == verify.Differs:
		return unclear
	case d.Kind == "event trigger", d.Kind == "comment" && strings.HasPrefix(d.Name, "event trigger "):
		return warned
	case d.Kind == "index" && d.State == verify.Missing && d.Repair != "":
		return mends
	case changesOwner(d) && d.Repair != "":
		return passes
	case d.State == verify.Missing && (d.Kind == "table" || d.Kind == "materialized view"):
		return makes
	}
	return serious
}

// changesOwner says whether an object belongs to somebody else on the primary.
func changesOwner(d verify.SchemaDifference) bool {
	return d.State == verify.Differs && ownerOf(d.Primary) != ownerOf(d.Secondary)
}

// fromCopy says whether a difference that is found by the first comparison can come
// from a definition that was printed by a server of one version and read by another.
func fromCopy(d verify.SchemaDifference) bool { return d.State == verify.Differs && d.Worded }

func driftOf(d verify.SchemaDifference) catalog.Drift {
	return catalog.Drift{Kind: d.Kind, Name: d.Name, State: string(d.State), Primary: d.Primary, Secondary: d.Secondary}
}

// among says whether a drift is one of the differences.
func among(list []verify.SchemaDifference, k catalog.Drift) bool {
	return slices.ContainsFunc(list, func(d verify.SchemaDifference) bool { return driftOf(d).Same(k) })
}

// noteGlance notes that nothing differs that stops the link.
func (l *Link) noteGlance(ctx context.Context, list []verify.SchemaDifference) error {
	err := l.changeWatch(ctx, func(w *catalog.Watch) {
		w.Compared, w.Found = true, nil
		w.Known = slices.DeleteFunc(w.Known, func(k catalog.Drift) bool { return !k.Accepted && !among(list, k) })
		for _, d := range list {
			if weigh(d, *w) == unclear {
				w.Known = append(w.Known, driftOf(d))
			}
		}
	})
	if err == nil {
		l.warnOfDrift(slices.DeleteFunc(list, func(d verify.SchemaDifference) bool { return weigh(d, catalog.Watch{}) != warned }))
	}
	return err
}

// noteDrift draws the consequences of what differs at a position: nothing, a
// warning, an index that is built, or the end of the link's work.
func (l *Link) noteDrift(ctx context.Context, list []verify.SchemaDifference, at lsn.LSN) error {
	var warnings, first, grave, indexes []verify.SchemaDifference
	watch, err := l.schemaState(ctx)
	if err != nil {
		return err
	}
	refused, err := l.passOwners(ctx, slices.DeleteFunc(slices.Clone(list), func(d verify.SchemaDifference) bool { return weigh(d, watch) != passes }))
	if err != nil {
		return err
	}
	unmade, err := l.makeUnseen(ctx, slices.DeleteFunc(slices.Clone(list), func(d verify.SchemaDifference) bool { return weigh(d, watch) != makes }))
	if err != nil {
		return err
	}
	refused = append(refused, unmade...)
	err = l.changeWatch(ctx, func(w *catalog.Watch) {
		for _, d := range list {
			switch weigh(d, *w) {
			case warned:
				warnings = append(warnings, d)
			case unclear:
				first = append(first, d)
			case mends:
				indexes = append(indexes, d)
			case passes, makes:
				if slices.ContainsFunc(refused, driftOf(d).Same) {
					grave = append(grave, d)
				}
			case serious:
				if !w.Compared && fromCopy(d) {
					first = append(first, d)
				} else {
					grave = append(grave, d)
				}
			}
		}
		// What does not differ any more is forgotten; so that it counts another time.
		w.Known = slices.DeleteFunc(w.Known, func(k catalog.Drift) bool { return !among(list, k) })
		for _, d := range first {
			w.Known = append(w.Known, driftOf(d))
		}
		w.Compared = true
		w.Found = nil
		for _, d := range grave {
			w.Found = append(w.Found, driftOf(d))
		}
	})
	if err != nil {
		return err
	}
	l.warnOfDrift(warnings)
	if len(indexes) > 0 {
		if err := l.buildIndexes(ctx, indexes); err != nil {
			return err
		}
	}
	if len(grave) == 0 {
		return nil
	}
	p := driftProblem(l.Name(), grave, at)
	l.log.Error("schemas differ", "subject", p.Subject, "lsn", at, "objects", len(grave))
	return l.happen(ctx, role.Failed, p)
}

// warnOfDrift shows what differs and does not stop the link.
func (l *Link) warnOfDrift(events []verify.SchemaDifference) {
	if len(events) == 0 {
		l.setAside("event_trigger_differs", nil)
	} else {
		l.setAside("event_trigger_differs", problem.New(problem.Incompatible, "event_trigger_differs", "%s", sentence(events)).On(events[0].Name).
			WithHint("no event trigger sees commands on event triggers: run the same one on the twin"))
	}
	l.showKnown()
}

// showKnown shows what differs since the copy and was not accepted.
func (l *Link) showKnown() {
	l.schema.mu.Lock()
	var open []verify.SchemaDifference
	for _, k := range l.schema.stored.Known {
		if !k.Accepted {
			open = append(open, verify.SchemaDifference{Kind: k.Kind, Name: k.Name, State: verify.State(k.State), Primary: k.Primary, Secondary: k.Secondary})
		}
	}
	l.schema.mu.Unlock()
	if len(open) == 0 {
		l.setAside("schema_differs_since_copy", nil)
		return
	}
	hint := "compare the two definitions; if they mean the same: "
	if open[0].Kind == "column order" {
		hint = "rows are right by the names of columns; what names none (INSERT without a list, SELECT *) means something else when the twin is the primary: copy the database anew before that, or leave it so: "
	}
	l.setAside("schema_differs_since_copy", problem.New(problem.Incompatible, "schema_differs_since_copy", "%s", sentence(open)).On(open[0].Name).
		WithHint("%stwinspan link set %s --accept schema_differs_since_copy", hint, l.Name()))
}

// buildIndexes makes the indexes that the primary has got in a way that is not to be
// seen in its stream: REINDEX of one whose making had failed.
func (l *Link) buildIndexes(ctx context.Context, list []verify.SchemaDifference) error {
	conn, err := l.repairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := verify.RepairSchema(ctx, conn, l.dsn, l.Name(), list); err != nil {
		return err
	}
	var notices []catalog.Notice
	for _, d := range list {
		l.log.Info("index built", "subject", d.Name)
		notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "index_built", Subject: d.Name,
			Text: "the index was missing on the twin and was built as the primary has it: REINDEX, which crosses not, had made it valid there, or it was dropped here"})
	}
	return l.note(ctx, notices)
}

// passOwners gives objects the owners that they have on the primary, where REASSIGN OWNED,
// which no event trigger sees, has changed them. It returns those that are not given:
// to a role that is a superuser on the twin alone, for what a function does it does with
// its owner's rights.
func (l *Link) passOwners(ctx context.Context, list []verify.SchemaDifference) (refused []catalog.Drift, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	conn, err := l.repairSession(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var notices []catalog.Notice
	may := map[string]bool{} // own what it owns on the primary
	for _, d := range list {
		owner := ownerOf(d.Primary)
		if _, known := may[owner]; !known {
			if may[owner], err = l.mayOwn(ctx, conn, owner); err != nil {
				return nil, err
			}
		}
		var failed error
		if may[owner] {
			failed = verify.RepairSchema(ctx, conn, l.dsn, l.Name(), []verify.SchemaDifference{d})
		}
		switch {
		case !may[owner] || failed != nil && lasting(problem.As(failed)):
			refused = append(refused, driftOf(d))
		case failed != nil:
			return nil, failed
		default:
			l.log.Info("owner changed", "subject", d.Name, "owner", owner)
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "owner_changed", Subject: d.Name,
				Text: fmt.Sprintf("the %s belongs to %s, as on the primary: REASSIGN OWNED, which crosses not, had changed its owner there", d.Kind, owner)})
		}
	}
	if len(notices) == 0 {
		return refused, nil
	}
	return refused, l.note(ctx, notices)
}

// mayOwn says whether a role, which is made where the twin lacks it, may own what it owns on
// the primary.
func (l *Link) mayOwn(ctx context.Context, conn *pgx.Conn, owner string) (bool, error) {
	if err := l.ensureRoles(ctx, []string{owner}); err != nil {
		return false, err
	}
	here, err := pg.RolesNamed(ctx, conn, []string{owner})
	if err != nil {
		return false, err
	}
	r := pg.RoleIn(here, owner)
	if r == nil || !r.Superuser {
		return r != nil, nil
	}
	return l.superuserThere(ctx, owner)
}

// driftProblem names what differs, and what is to be done.
func driftProblem(link string, list []verify.SchemaDifference, at lsn.LSN) *problem.Error {
	d := list[0]
	p := problem.New(problem.Diverged, "schema_drifted", "at position %s the schemas differ: %s", at, sentence(list)).On(d.Name)
	then := fmt.Sprintf("then: twinspan link resume %s", link)
	leave := fmt.Sprintf("; or leave it so: twinspan link set %s --accept schema_drifted", link)
	switch {
	case changesOwner(d) && d.Repair != "":
		return p.WithHint("give the command once more on the primary, where REASSIGN OWNED is not seen by event triggers: %s; %s%s", d.Repair, then, leave)
	case d.State == verify.Missing && d.Repair != "":
		return p.WithHint("on the secondary (%s): %s; %s%s", throughGate, d.Repair, then, leave)
	case d.State == verify.Missing:
		return p.WithHint("drop it on the primary and create it by a command of its own, or create it on the secondary (%s) as it is on the primary; %s%s", throughGate, then, leave)
	case d.State == verify.Extra:
		return p.WithHint("drop it on the secondary (%s); %s%s", throughGate, then, leave)
	}
	return p.WithHint("make the same change on the secondary (%s), or undo it on the primary; %s%s", throughGate, then, leave)
}

// throughGate is how a superuser's session passes the gate of a secondary.
const throughGate = "SET session_replication_role = replica; SET twinspan.pass_gate = on; SET default_transaction_read_only = off"

// mostWords bounds what is quoted of a definition.
const mostWords = 160

// sentence says what differs: the first object in full, of others how many.
func sentence(list []verify.SchemaDifference) string {
	d := list[0]
	text := d.Kind + " " + d.Name
	switch d.State {
	case verify.Missing:
		text += " is missing on the twin"
	case verify.Extra:
		text += " is on the twin alone"
	default:
		a, b := onlyIn(d.Primary, d.Secondary), onlyIn(d.Secondary, d.Primary)
		text += fmt.Sprintf(" (primary: %s; twin: %s)", cutTo(a, mostWords), cutTo(b, mostWords))
	}
	if len(list) > 1 {
		names := make([]string, 0, 4)
		for _, other := range list[1:min(len(list), 4)] {
			names = append(names, other.Kind+" "+other.Name)
		}
		text += fmt.Sprintf("; and %d more: %s", len(list)-1, strings.Join(names, ", "))
		if len(list) > 4 {
			text += ", ..."
		}
	}
	return text
}

// onlyIn returns the parts of a definition that another has not.
func onlyIn(a, b string) string {
	there := strings.Split(b, ", ")
	var only []string
	for _, part := range strings.Split(a, ", ") {
		if !slices.Contains(there, part) {
			only = append(only, part)
		}
	}
	if len(only) == 0 {
		return "nothing of it"
	}
	return strings.Join(only, ", ")
}

func cutTo(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// ownerOf returns the owner that a definition names, "" when it names none.
func ownerOf(detail string) string {
	owner, ok := strings.CutPrefix(detail, "owner ")
	if !ok {
		return ""
	}
	owner, _, _ = strings.Cut(owner, ", ")
	return owner
}

// schemaState returns what is stored.
func (l *Link) schemaState(ctx context.Context) (catalog.Watch, error) {
	s := &l.schema
	s.mu.Lock()
	defer s.mu.Unlock()
	err := l.loadWatchLocked(ctx)
	return s.stored, err
}

func (l *Link) loadWatchLocked(ctx context.Context) error {
	s := &l.schema
	if s.loaded {
		return nil
	}
	return l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		s.stored, err = catalog.GetWatch(ctx, conn, l.ID())
		s.loaded = err == nil
		return err
	})
}

// changeWatch changes what is stored.
func (l *Link) changeWatch(ctx context.Context, f func(w *catalog.Watch)) error {
	s := &l.schema
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := l.loadWatchLocked(ctx); err != nil {
		return err
	}
	next := s.stored
	next.Known, next.Found = slices.Clone(next.Known), slices.Clone(next.Found)
	f(&next)
	if reflect.DeepEqual(next, s.stored) {
		return nil
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return catalog.StoreWatch(ctx, conn, l.ID(), next) })
	if err == nil {
		s.stored = next
	}
	return err
}
