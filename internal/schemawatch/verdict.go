package schemawatch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/drift"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// noteGlance notes that nothing differs that stops the link.
func (w *Watch) noteGlance(ctx context.Context, list []verify.SchemaDifference) error {
	err := w.change(ctx, func(stored *catalog.Watch) {
		stored.Compared, stored.Found = true, nil
		stored.Known = slices.DeleteFunc(stored.Known, func(k catalog.Drift) bool { return !k.Accepted && !drift.Among(list, k) })
		for _, d := range list {
			if drift.Weigh(d, *stored) == drift.Unclear {
				stored.Known = append(stored.Known, drift.Of(d))
			}
		}
	})
	if err == nil {
		w.warnOfDrift(slices.DeleteFunc(list, func(d verify.SchemaDifference) bool { return drift.Weigh(d, catalog.Watch{}) != drift.Warned }))
	}
	return err
}

// noteDrift draws the consequences of what differs at a position: nothing, a
// warning, an index that is built, or the end of the link's work.
func (w *Watch) noteDrift(ctx context.Context, list []verify.SchemaDifference, at lsn.LSN) error {
	var warnings, first, grave, indexes []verify.SchemaDifference
	stored, err := w.State(ctx)
	if err != nil {
		return err
	}
	refused, err := w.passOwners(ctx, slices.DeleteFunc(slices.Clone(list), func(d verify.SchemaDifference) bool { return drift.Weigh(d, stored) != drift.Passes }))
	if err != nil {
		return err
	}
	unmade, err := w.with.Make(ctx, slices.DeleteFunc(slices.Clone(list), func(d verify.SchemaDifference) bool { return drift.Weigh(d, stored) != drift.Makes }))
	if err != nil {
		return err
	}
	refused = append(refused, unmade...)
	err = w.change(ctx, func(stored *catalog.Watch) {
		for _, d := range list {
			switch drift.Weigh(d, *stored) {
			case drift.Warned:
				warnings = append(warnings, d)
			case drift.Unclear:
				first = append(first, d)
			case drift.Mends:
				indexes = append(indexes, d)
			case drift.Passes, drift.Makes:
				if slices.ContainsFunc(refused, drift.Of(d).Same) {
					grave = append(grave, d)
				}
			case drift.Serious:
				if !stored.Compared && drift.FromCopy(d) {
					first = append(first, d)
				} else {
					grave = append(grave, d)
				}
			}
		}
		// What does not differ any more is forgotten; so that it counts another time.
		stored.Known = slices.DeleteFunc(stored.Known, func(k catalog.Drift) bool { return !drift.Among(list, k) })
		for _, d := range first {
			stored.Known = append(stored.Known, drift.Of(d))
		}
		stored.Compared = true
		stored.Found = nil
		for _, d := range grave {
			stored.Found = append(stored.Found, drift.Of(d))
		}
	})
	if err != nil {
		return err
	}
	w.warnOfDrift(warnings)
	if len(indexes) > 0 {
		if err := w.buildIndexes(ctx, indexes); err != nil {
			return err
		}
	}
	if len(grave) == 0 {
		return nil
	}
	p := drift.Problem(w.side.Name(), grave, at)
	w.side.Log.Error("schemas differ", "subject", p.Subject, "lsn", at, "objects", len(grave))
	return w.side.Happen(ctx, role.Failed, p)
}

// warnOfDrift shows what differs and does not stop the link.
func (w *Watch) warnOfDrift(events []verify.SchemaDifference) {
	if len(events) == 0 {
		w.side.Warn("event_trigger_differs", nil)
	} else {
		w.side.Warn("event_trigger_differs", problem.New(problem.Incompatible, "event_trigger_differs", "%s", drift.Sentence(events)).On(events[0].Name).
			WithHint("no event trigger sees commands on event triggers: run the same one on the twin"))
	}
	w.showKnown()
}

// showKnown shows what differs since the copy and was not accepted.
func (w *Watch) showKnown() {
	w.mu.Lock()
	var open []verify.SchemaDifference
	for _, k := range w.stored.Known {
		if !k.Accepted {
			open = append(open, verify.SchemaDifference{Kind: k.Kind, Name: k.Name, State: verify.State(k.State), Primary: k.Primary, Secondary: k.Secondary})
		}
	}
	w.mu.Unlock()
	if len(open) == 0 {
		w.side.Warn("schema_differs_since_copy", nil)
		return
	}
	hint := "compare the two definitions; if they mean the same: "
	if open[0].Kind == "column order" {
		hint = "rows are right by the names of columns; what names none (INSERT without a list, SELECT *) means something else when the twin is the primary: copy the database anew before that, or leave it so: "
	}
	w.side.Warn("schema_differs_since_copy", problem.New(problem.Incompatible, "schema_differs_since_copy", "%s", drift.Sentence(open)).On(open[0].Name).
		WithHint("%stwinspan link set %s --accept schema_differs_since_copy", hint, w.side.Name()))
}

// buildIndexes makes the indexes that the primary has got in a way that is not to be
// seen in its stream: REINDEX of one whose making had failed.
func (w *Watch) buildIndexes(ctx context.Context, list []verify.SchemaDifference) error {
	conn, err := w.meets.RepairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := verify.RepairSchema(ctx, conn, w.side.DSN, w.side.Name(), list); err != nil {
		return err
	}
	var notices []catalog.Notice
	for _, d := range list {
		w.side.Log.Info("index built", "subject", d.Name)
		notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "index_built", Subject: d.Name,
			Text: "the index was missing on the twin and was built as the primary has it: REINDEX, which crosses not, had made it valid there, or it was dropped here"})
	}
	return w.side.Note(ctx, notices)
}

// passOwners gives objects the owners that they have on the primary, where REASSIGN OWNED,
// which no event trigger sees, has changed them. It returns those that are not given:
// to a role that is a superuser on the twin alone, for what a function does it does with
// its owner's rights.
func (w *Watch) passOwners(ctx context.Context, list []verify.SchemaDifference) (refused []catalog.Drift, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	conn, err := w.meets.RepairSession(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var notices []catalog.Notice
	may := map[string]bool{} // own what it owns on the primary
	for _, d := range list {
		owner := drift.OwnerOf(d.Primary)
		if _, known := may[owner]; !known {
			if may[owner], err = w.with.MayOwn(ctx, conn, owner); err != nil {
				return nil, err
			}
		}
		var failed error
		if may[owner] {
			failed = verify.RepairSchema(ctx, conn, w.side.DSN, w.side.Name(), []verify.SchemaDifference{d})
		}
		switch {
		case !may[owner] || failed != nil && side.Lasting(problem.As(failed)):
			refused = append(refused, drift.Of(d))
		case failed != nil:
			return nil, failed
		default:
			w.side.Log.Info("owner changed", "subject", d.Name, "owner", owner)
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "owner_changed", Subject: d.Name,
				Text: fmt.Sprintf("the %s belongs to %s, as on the primary: REASSIGN OWNED, which crosses not, had changed its owner there", d.Kind, owner)})
		}
	}
	if len(notices) == 0 {
		return refused, nil
	}
	return refused, w.side.Note(ctx, notices)
}
