package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// MethodSkip asks the secondary to leave out the schema change at which it stands.
const MethodSkip = "link.skip"

// Skip lets a link go on whose stream stands at a schema change that cannot be
// made on the secondary: that one is left out, once. What then differs is found by
// comparing the schemas.
func (p *Replayer) Skip(ctx context.Context) error {
	return side.DoOnSecondary(ctx, p.side, MethodSkip, p.side.Reference(), p.skip)
}

// skip is Skip on the secondary.
func (p *Replayer) skip(ctx context.Context) error {
	r := p.side.Record()
	err := p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		s, err := catalog.GetStopped(ctx, conn, r.ID)
		if err != nil {
			return err
		}
		if s == nil || s.Skip {
			return problem.New(problem.NotFound, "no_change_stops", "link %s does not stand at a schema change", r.Name).On(r.Name).
				WithHint("twinspan link show %s says what is wrong", r.Name)
		}
		s.Skip = true
		return catalog.StoreStopped(ctx, conn, r.ID, s)
	})
	if err != nil || role.Phase(r.Phase) != role.Broken {
		return err // one that waits for a right sees it at its next try
	}
	return p.resume(ctx)
}

// HandleSkip does it for the primary's operator.
func (p *Replayer) HandleSkip(ctx context.Context, r side.Reference) error {
	if err := p.side.SecondaryAt(r); err != nil {
		return err
	}
	return p.Skip(ctx)
}

// stopsAt notes that the stream stands at a change. It says whether that is to be left
// out.
func (p *Replayer) stopsAt(ctx context.Context, at lsn.LSN, place int, tag, subject string) (skip bool, err error) {
	r := p.side.Record()
	err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		s, err := catalog.GetStopped(ctx, conn, r.ID)
		if err != nil {
			return err
		}
		if s != nil && s.At == at && s.Place == place {
			skip = s.Skip
			return nil
		}
		return catalog.StoreStopped(ctx, conn, r.ID, &catalog.StoppedChange{At: at, Place: place, Tag: tag, Subject: subject})
	})
	return skip, err
}

// passesOver says whether a change is one to be left out.
func (p *Replayer) passesOver(ctx context.Context, at lsn.LSN, place int) (skip bool, err error) {
	r := p.side.Record()
	err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		s, err := catalog.GetStopped(ctx, conn, r.ID)
		skip = err == nil && s != nil && s.Skip && s.At == at && s.Place == place
		return err
	})
	return skip, err
}

// noteSkipped tells the link's owner.
func (p *Replayer) noteSkipped(ctx context.Context, tag, subject string, at lsn.LSN) error {
	p.side.Log.Warn("schema change left out", "tag", tag, "subject", subject, "lsn", at)
	return p.side.Note(ctx, []catalog.Notice{{At: time.Now().UTC(), Code: "schema_change_skipped", Subject: subject,
		Text: fmt.Sprintf("%s of %s, committed at %s, was left out on the secondary as asked for", tag, subject, at)}})
}
