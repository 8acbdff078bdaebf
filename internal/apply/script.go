package apply

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Script is what a signal asks to be run on the secondary: statements without
// parameters, all of them or none, in the target transaction of the signal's own.
type Script struct {
	Statements []string
	Main       int    // index of the statement that the others serve
	Tag        string // what it is, for people: CREATE TABLE
	Subject    string // the object it is about
	// Anew are tables whose rows the stream brings behind the script: it begins with emptying them.
	Anew []sqlname.Table
	// Renamed are schemas that get another name. The stream goes on naming tables
	// that it has described before by the old one (pgoutput notices changes of a
	// table, not of its schema).
	Renamed map[string]string
	// Lacking is asked when the server says that a right is missing: what to try next
	// (the same where nil), and what to tell people meanwhile, for the script waits for
	// the right. An error is the end. Without it a missing right is a refusal like others.
	Lacking func(ctx context.Context, cause error) (next *Script, waits *problem.Error, err error)
	// Absent is asked, once, when the server says that a relation or its row type is not there: for what makes what
	// is lacking before the script, and whether that is all that is to be done (instead). xid is that of the transaction,
	// said what the server says, in its language.
	Absent func(ctx context.Context, xid uint32, said string) (made []*Script, instead bool, err error)
	// Refused is told when the script cannot be run, with the position and the place of
	// the signal among those of its transaction.
	Refused func(ctx context.Context, at lsn.LSN, place int)
}

const (
	// opAhead is what empties tables before the statements of a script.
	opAhead = -99
	// opScript is the first statement of a script; the next ones are below.
	opScript = -100
)

// tagResend stands for a tag where rows are sent anew.
const tagResend = "the sending anew"

// mostCollisions is how often a script is tried again that met another writer of the
// same row of a catalog. What it writes that other databases write too is pg_shdepend
// alone, so such a meeting passes.
const mostCollisions = 40

// blockedAfter is how long a script waits for a lock before it counts as a problem.
const blockedAfter = 3 * time.Second

// script runs a script. Everything before it is applied (drain). A lock that
// somebody holds is waited for in turns, so that readers of the secondary are not
// queued behind the wait for long; so is a right that is missing, but with nothing
// held: where the transaction has changed something before, it is begun anew.
func (e *engine) script(ctx context.Context, script *Script) error {
	absent, err := e.tryScript(ctx, script)
	if err != nil || absent == nil {
		return err
	}
	// Rows come in the shape that their table had when they were written, before the script.
	if made, err := e.makeHeld(ctx); err != nil {
		return err
	} else if made {
		return e.scriptBehind(ctx, script)
	}
	made, instead, err := script.Absent(ctx, e.tx.xid, absent.err.Message)
	switch {
	case err != nil:
		return err
	case len(made) == 0 && !instead:
		return e.refused(ctx, script, absent)
	}
	for _, m := range made {
		if err := e.scriptBehind(ctx, m); err != nil {
			return err
		}
	}
	if instead {
		return nil
	}
	again := *script
	again.Absent = nil
	return e.scriptBehind(ctx, &again)
}

// scriptBehind runs a script behind another one, which may have let rows in that waited.
func (e *engine) scriptBehind(ctx context.Context, script *Script) error {
	if err := e.drain(ctx); err != nil {
		return err
	}
	return e.script(ctx, script)
}

// tryScript runs a script. It returns what the server says where that lacks a relation for which Absent can be asked.
func (e *engine) tryScript(ctx context.Context, script *Script) (absent *failure, err error) {
	b := &batch{savepoint: e.inTarget}
	defer e.a.status.blocked.Store(nil)
	began, entered, collisions := time.Now(), false, 0
	defer e.clearing(ctx, began)()
	ahead, err := e.emptyAhead(ctx, script)
	if err != nil {
		return nil, err
	}
	for backoff := firstBackoff; ; backoff = min(backoff*2, mostBackoff) {
		x := e.s.begin()
		if !entered || !b.savepoint {
			e.enter(b)
			entered = true
		}
		for _, sql := range ahead {
			e.s.exec(sql, opAhead, anyCount)
		}
		for i, sql := range script.Statements {
			e.s.exec(sql, opScript-i, anyCount)
		}
		e.s.sync()
		f, err := e.s.wait(ctx, x)
		if err != nil {
			return nil, err
		}
		if f == nil {
			e.s.giveUp()
			break
		}
		if err := e.undo(ctx, b); err != nil {
			return nil, err
		}
		e.s.giveUp()
		switch {
		case f.op == opAhead && !passing(f) && !collided(f):
			// Not the command's fault, nor its role's.
			return nil, e.aheadProblem(script, f)
		case lacksRight(f) && script.Lacking != nil:
			next, waits, err := script.Lacking(ctx, scriptCause(f))
			if err != nil {
				return nil, err
			}
			if next != nil {
				script = next
				if ahead, err = e.emptyAhead(ctx, script); err != nil {
					return nil, err
				}
			}
			if waits != nil {
				e.a.status.blocked.Store(waits)
				if b.savepoint && time.Since(began) > blockedAfter {
					return nil, waits
				}
			}
		case lacksRelation(f) && script.Absent != nil:
			return f, nil
		case passing(f):
			if time.Since(began) > blockedAfter {
				e.a.status.blocked.Store(problem.New(problem.Transient, "schema_change_waits", "%s of %s waits for a lock that somebody holds on the secondary", script.Tag, script.Subject).
					On(script.Subject).WithHint("%s", e.conflictHint("end the transaction on the secondary that uses "+script.Subject)))
			}
		case collided(f) && collisions < mostCollisions:
			collisions++
		default:
			return nil, e.refused(ctx, script, f)
		}
		e.a.status.retries.Add(1)
		e.a.Log.DebugContext(ctx, "schema change waits", "subject", script.Subject, "code", f.state(), "dur", backoff)
		if err := pause(ctx, backoff); err != nil {
			return nil, err
		}
	}
	e.touched()
	e.a.Log.InfoContext(ctx, "schema changed", "tag", script.Tag, "subject", script.Subject, "lsn", e.tx.final)
	if err := e.forget(ctx, script); err != nil {
		return nil, err
	}
	return nil, e.release(ctx)
}

// aheadProblem says why the tables whose rows come behind a script cannot be emptied.
func (e *engine) aheadProblem(script *Script, f *failure) error {
	names := make([]string, len(script.Anew))
	for i, name := range script.Anew {
		names[i] = name.String()
	}
	subject := problem.Names(names)
	if f.err != nil {
		if p := rights.Problem(f.err, e.a.DSN.User(), subject); p != nil {
			return p
		}
	}
	return e.scriptProblem(&Script{Tag: tagResend, Subject: subject}, f)
}

// refused tells that a script cannot be run.
func (e *engine) refused(ctx context.Context, script *Script, f *failure) error {
	if script.Refused != nil && !hopeless(f) {
		script.Refused(ctx, e.tx.final, e.tx.signals)
	}
	return e.scriptProblem(script, f)
}

// lacksRelation says whether a relation is missing, or a type, as every relation has one.
func lacksRelation(f *failure) bool { return f.state() == "42P01" || f.state() == "42704" }

// lacksRight says whether a right is missing.
func lacksRight(f *failure) bool { return f.state() == "42501" }

// collided says whether somebody else changed the same row of a catalog at the same
// time, which the server reports without a code of its own (heapam.c,
// simple_heap_update).
func collided(f *failure) bool {
	return f.err != nil && f.err.Code == "XX000" && (strings.Contains(f.err.Message, "concurrently updated") || strings.Contains(f.err.Message, "concurrently deleted"))
}

// scriptCause is the problem of an error of the server in a script. A schema change
// holds no values of rows, so the server's words are shown; but evaluating its
// expressions over rows may quote one.
func scriptCause(f *failure) error {
	if f.err == nil {
		return problem.New(problem.Internal, "protocol_violated", "the server answered a schema change with another count of rows")
	}
	clean := *f.err
	clean.Detail, clean.Where, clean.InternalQuery = "", "", ""
	if first, last := strings.Index(clean.Message, `"`), strings.LastIndex(clean.Message, `"`); strings.HasPrefix(clean.Code, "P0") && first != last {
		clean.Message = clean.Message[:first+1] + "..." + clean.Message[last:]
	}
	cause := pg.Classify(&clean, "the server refuses")
	if clean.Code == "22023" { // a word of the command, as the version of an extension
		known := problem.As(cause)
		return problem.Wrap(&pg.ServerError{State: clean.Code, Message: clean.Message}, known.Kind, known.Code, "the server refuses")
	}
	return cause
}

// touched notes that the open transaction has an effect that is no planned change,
// and that the target transaction is to end where it does: a new value of an enum
// is usable only then.
func (e *engine) touched() {
	e.tx.alone = true
	if !e.tx.any {
		e.tx.any = true
		e.tx.first = 0
		e.current.txs = append(e.current.txs, e.tx)
	}
}

// scriptProblem says which schema change the server refuses, and why.
func (e *engine) scriptProblem(script *Script, f *failure) error {
	cause := scriptCause(f)
	if hopeless(f) {
		return cause
	}
	what := script.Tag + " of " + script.Subject
	if f.op != opScript-script.Main {
		what = "what belongs to " + what
	}
	return problem.Wrap(cause, problem.Diverged, "schema_change_failed", "%s (transaction %d, committed at %s)", what, e.tx.xid, e.tx.final).
		On(script.Subject).WithHint("make it possible on the secondary (what the server names is missing or in the way there), then resume the link; or have the twin compared and brought in line: twinspan link resume %[1]s --repair; or leave the change out: twinspan link resume %[1]s --skip-change", e.a.Link)
}

// resendSignal takes the marks around the rows of a table that are sent anew.
func (e *engine) resendSignal(ctx context.Context, kind string, payload []byte) error {
	var p struct{ Schema, Table []byte }
	if err := json.Unmarshal(payload, &p); err != nil {
		return corrupt("a %s signal that cannot be read: %v", kind, err)
	}
	name := sqlname.Table{Schema: string(p.Schema), Name: string(p.Table)}
	if kind == "resent" {
		delete(e.resent, name)
		return nil
	}
	if err := e.empty(ctx, name); err != nil {
		return err
	}
	e.resent[name] = true
	return nil
}
