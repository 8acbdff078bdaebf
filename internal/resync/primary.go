package resync

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
)

// MethodRenew asks the primary to make the slot anew and hold its snapshot.
const MethodRenew = "link.renew"

// Primary is the primary's half.
type Primary struct {
	side      *side.Side
	service   *side.Service
	snapshots *meet.Primary
	source    func() capture.Source
}

// NewPrimary returns a primary's half, which serves as the service does and holds its snapshots
// where others are held.
func NewPrimary(s *side.Side, service *side.Service, snapshots *meet.Primary, source func() capture.Source) *Primary {
	return &Primary{side: s, service: service, snapshots: snapshots, source: source}
}

// HandleRenew makes the link's slot anew and holds the snapshot of its first
// position for as long as the stream lives, for the secondary to repair its twin by.
func (p *Primary) HandleRenew(ctx context.Context, request meet.SnapshotRequest, s *peer.Stream) error {
	ctx, leave, err := p.service.Enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	session, err := p.renewSlot(ctx)
	if err != nil {
		return err
	}
	return p.snapshots.Hold(ctx, request, session, s)
}

// renewSlot drops what is left of the slot and makes a new one.
func (p *Primary) renewSlot(ctx context.Context) (*seed.Session, error) {
	source := p.source()
	err := p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return capture.DropSlot(ctx, conn, source.Object()) })
	if err != nil {
		return nil, err
	}
	// A primary that was restored may lack what stood in it for the link.
	if err := source.Prepare(ctx); err != nil {
		return nil, err
	}
	session, err := seed.CreateSlot(ctx, p.side.DSN, p.side.Name(), source.Object())
	if err != nil {
		return nil, err
	}
	err = p.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		r.StartLSN, r.SystemID = session.LSN, session.SystemID
		return catalog.SetStart(ctx, conn, r, session.LSN, session.SystemID)
	})
	if err != nil {
		session.Close()
		return nil, err
	}
	p.side.Log.Info("slot made anew", "lsn", session.LSN)
	return session, nil
}
