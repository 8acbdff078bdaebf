package upstream

import (
	"context"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
)

// supply is the primary's half of a seeding.
func (p *Primary) supply() *seed.Source {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seeds == nil {
		r := p.side.Record()
		p.seeds = &seed.Source{DSN: p.side.DSN, Name: r.Name, Slot: catalog.ObjectName(r.ID), Log: p.with.Log}
	}
	return p.seeds
}

// Close lets go of what is held for a first copy. Another one begins anew.
func (p *Primary) Close() {
	p.mu.Lock()
	seeds := p.seeds
	p.seeds = nil
	p.mu.Unlock()
	if seeds != nil {
		seeds.Close()
	}
}

// HandleBegin gives the secondary a snapshot: the one that is held, or a new one.
func (p *Primary) HandleBegin(ctx context.Context, request BeginRequest) (seed.Begun, error) {
	ctx, leave, err := p.service.Enter(ctx, request.Reference)
	if err != nil {
		return seed.Begun{}, err
	}
	defer leave()
	begun, err := p.takeSnapshot(ctx, request.BeginRequest)
	if err != nil || p.side.Record().SystemID == begun.SystemID {
		return begun, err
	}
	return begun, p.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		r.StartLSN, r.SystemID = begun.LSN, begun.SystemID
		return catalog.SetStart(ctx, conn, r, begun.LSN, begun.SystemID)
	})
}

// takeSnapshot takes a snapshot. What is created after the first one is noted, for it may
// be changed while the copy is made.
func (p *Primary) takeSnapshot(ctx context.Context, request seed.BeginRequest) (begun seed.Begun, err error) {
	source := p.with.Source()
	if !request.Again {
		if err := p.side.Session.Do(ctx, source.CopyBegins); err != nil {
			return begun, err
		}
	}
	if begun, err = p.supply().Begin(ctx, request); err != nil {
		return begun, err
	}
	err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if begun.Follows, err = capture.Follows(ctx, conn); err != nil || request.Again {
			return err
		}
		return source.CopyBegan(ctx, conn)
	})
	return begun, err
}

// HandleEnd lets the snapshot go.
func (p *Primary) HandleEnd(ctx context.Context, request side.SessionReference) error {
	ctx, leave, err := p.service.Enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	return p.supply().End(ctx, request.Token)
}

// HandleTables sends what is to be copied.
func (p *Primary) HandleTables(ctx context.Context, request side.SessionReference, s *peer.Stream) error {
	return p.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return p.supply().Tables(ctx, request.Token) })
}

// HandleSchema sends the structure at the session's snapshot.
func (p *Primary) HandleSchema(ctx context.Context, request side.SessionReference, s *peer.Stream) error {
	return p.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		session, err := p.supply().Session(request.Token)
		if err != nil {
			return nil, err
		}
		return p.Dump(ctx, session.Snapshot)
	})
}

// Dump reads the structure at a snapshot.
func (p *Primary) Dump(ctx context.Context, snapshot string) (*schema.Dump, error) {
	dump, err := p.schemaSource().Dump(ctx, snapshot)
	if err != nil {
		return nil, err
	}
	return dump, p.keepIdentities(ctx, dump)
}

func (p *Primary) schemaSource() *schema.Source {
	return &schema.Source{DSN: p.side.DSN, Name: p.side.Name(), Find: instance.FindClient, Dir: p.with.Spool.Dir()}
}

// keepIdentities gives the twin's tables the replica identities that the
// primary's had before the link: it is the primary alone that needs FULL.
func (p *Primary) keepIdentities(ctx context.Context, dump *schema.Dump) error {
	source := p.with.Source()
	var formers []capture.Former
	err := p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		formers, err = source.Identities(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	last, at := 0, 0
	for i, e := range dump.Entries {
		last = max(last, e.ID)
		if e.Section == schema.PreData {
			at = i + 1
		}
	}
	for _, f := range formers {
		last++
		f.Index = "" // an index of the second half, which is not there yet, or is gone
		dump.Entries = slices.Insert(dump.Entries, at, schema.Entry{
			Section: schema.PreData, ID: last, Kind: "REPLICA IDENTITY", Schema: f.Table.Schema, Name: f.Table.Name, Table: f.Table, SQL: schema.Text(f.SQL()),
		})
		at++
	}
	return nil
}

// HandleCopy sends a chunk.
func (p *Primary) HandleCopy(ctx context.Context, request CopyRequest, s *peer.Stream) error {
	return p.service.AnswerRows(ctx, request.Reference, s, request.Compress, func(ctx context.Context, w io.Writer) (int64, error) {
		return p.supply().Copy(ctx, request.Token, request.CopyRequest, w)
	})
}
