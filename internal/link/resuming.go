package link

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// ResumeWithRepair lets a link go on whose stream cannot: its slot is gone, or what
// lies between slot and twin is, or the primary is one that has lost what the twin
// has. The stream begins anew at a snapshot, to whose state the twin is brought by
// comparing the two and copying the rows that differ.
func (l *Link) ResumeWithRepair(ctx context.Context) error {
	return side.DoOnSecondary(ctx, l.side, MethodRepair, l.side.Reference(), l.resumeWithRepair)
}

// resumeWithRepair is ResumeWithRepair on the secondary.
func (l *Link) resumeWithRepair(ctx context.Context) error {
	r := l.side.Record()
	if !r.Seeded {
		return problem.New(problem.Conflict, "copy_incomplete", "the copy is not complete: there is nothing to repair").On(r.Name).
			WithHint("twinspan link resume %s goes on with it", r.Name)
	}
	l.mu.Lock()
	streaming := l.secondary.applier != nil
	l.mu.Unlock()
	// The primary may know that the slot is lost while this side only knows that it is
	// not served.
	waiting := !streaming && (role.Phase(r.Phase) == role.CatchingUp || role.Phase(r.Phase) == role.Replicating)
	if role.Phase(r.Phase) != role.Broken && !waiting {
		return problem.New(problem.Conflict, "phase_refuses", "link %s is %s, not broken: its stream goes on as it is", r.Name, r.Phase).On(r.Name).
			WithHint("twinspan link verify %s --repair compares and repairs a link that replicates", r.Name)
	}
	err := l.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		r.Renewing = true
		return catalog.SetRenewing(ctx, conn, r)
	})
	if err != nil {
		return err
	}
	return l.Resume(ctx)
}

// handleRepair does it for the primary's operator.
func (l *Link) handleRepair(ctx context.Context, r Reference) error {
	if err := l.side.SecondaryAt(r); err != nil {
		return err
	}
	return l.ResumeWithRepair(ctx)
}

// renew brings the twin to the state of a new slot's snapshot. It begins from the
// start when it was interrupted: what was repaired by then is found equal.
func (l *Link) renew(ctx context.Context) error {
	defer l.step("")
	if err := l.resync.Repair(ctx); err != nil {
		return err
	}
	l.step("copying large objects")
	_, err := l.objects.Bring(ctx, true)
	return err
}
