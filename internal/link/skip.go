package link

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// MethodSkip asks the secondary to leave out the schema change at which it stands.
const MethodSkip = "link.skip"

// ResumeSkipping lets a link go on whose stream stands at a schema change that cannot be
// made on the secondary: that one is left out, once. What then differs is found by
// comparing the schemas.
func (l *Link) ResumeSkipping(ctx context.Context) error {
	r := l.snapshot()
	if role.Role(r.Role) == role.Primary {
		return l.place.Peers.Call(ctx, r.Peer, MethodSkip, Reference{ID: r.ID, Epoch: r.Epoch}, nil)
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
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
	return l.Resume(ctx)
}

// HandleSkip does it for the primary's operator.
func (l *Link) HandleSkip(ctx context.Context, r Reference) error {
	if err := l.secondaryAt(r); err != nil {
		return err
	}
	return l.ResumeSkipping(ctx)
}

// stopsAt notes that the stream stands at a change. It says whether that is to be left
// out.
func (l *Link) stopsAt(ctx context.Context, at lsn.LSN, place int, tag, subject string) (skip bool, err error) {
	r := l.snapshot()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
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
func (l *Link) passesOver(ctx context.Context, at lsn.LSN, place int) (skip bool, err error) {
	r := l.snapshot()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		s, err := catalog.GetStopped(ctx, conn, r.ID)
		skip = err == nil && s != nil && s.Skip && s.At == at && s.Place == place
		return err
	})
	return skip, err
}

// noteSkipped tells the link's owner.
func (l *Link) noteSkipped(ctx context.Context, tag, subject string, at lsn.LSN) error {
	l.log.Warn("schema change left out", "tag", tag, "subject", subject, "lsn", at)
	return l.note(ctx, []catalog.Notice{{At: time.Now().UTC(), Code: "schema_change_skipped", Subject: subject,
		Text: fmt.Sprintf("%s of %s, committed at %s, was left out on the secondary as asked for", tag, subject, at)}})
}
