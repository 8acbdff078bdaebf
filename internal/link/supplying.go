package link

import (
	"context"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
)

// supply is the primary's half of a seeding.
func (l *Link) supply() *seed.Source {
	p := &l.primary
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seeds == nil {
		r := l.snapshot()
		p.seeds = &seed.Source{DSN: l.dsn, Name: r.Name, Slot: catalog.ObjectName(r.ID), Log: l.place.Log}
	}
	return p.seeds
}

func (l *Link) closeSeeds() {
	p := &l.primary
	p.mu.Lock()
	seeds := p.seeds
	p.seeds = nil
	p.mu.Unlock()
	if seeds != nil {
		seeds.Close()
	}
}

// HandleBegin gives the secondary a snapshot: the one that is held, or a new one.
func (l *Link) HandleBegin(ctx context.Context, request BeginRequest) (seed.Begun, error) {
	ctx, leave, err := l.enter(ctx, request.Reference)
	if err != nil {
		return seed.Begun{}, err
	}
	defer leave()
	begun, err := l.takeSnapshot(ctx, request.BeginRequest)
	if err != nil || l.snapshot().SystemID == begun.SystemID {
		return begun, err
	}
	r := l.snapshot()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.SetStart(ctx, conn, &r, begun.LSN, begun.SystemID)
	})
	if err == nil {
		l.mu.Lock()
		l.record.StartLSN, l.record.SystemID = begun.LSN, begun.SystemID
		l.mu.Unlock()
	}
	return begun, err
}

// takeSnapshot takes a snapshot. What is created after the first one is noted, for it may
// be changed while the copy is made.
func (l *Link) takeSnapshot(ctx context.Context, request seed.BeginRequest) (begun seed.Begun, err error) {
	source := l.source()
	if !request.Again {
		if err := l.control.do(ctx, source.CopyBegins); err != nil {
			return begun, err
		}
	}
	if begun, err = l.supply().Begin(ctx, request); err != nil {
		return begun, err
	}
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if begun.Follows, err = capture.Follows(ctx, conn); err != nil || request.Again {
			return err
		}
		return source.CopyBegan(ctx, conn)
	})
	return begun, err
}

// HandleEnd lets the snapshot go.
func (l *Link) HandleEnd(ctx context.Context, request SessionReference) error {
	ctx, leave, err := l.enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	return l.supply().End(ctx, request.Token)
}

// HandleTables sends what is to be copied.
func (l *Link) HandleTables(ctx context.Context, request SessionReference, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return l.supply().Tables(ctx, request.Token) })
}

// HandleSchema sends the structure at the session's snapshot.
func (l *Link) HandleSchema(ctx context.Context, request SessionReference, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		session, err := l.supply().Session(request.Token)
		if err != nil {
			return nil, err
		}
		return l.dump(ctx, session.Snapshot)
	})
}

// dump reads the structure at a snapshot.
func (l *Link) dump(ctx context.Context, snapshot string) (*schema.Dump, error) {
	dump, err := l.schemaSource().Dump(ctx, snapshot)
	if err != nil {
		return nil, err
	}
	return dump, l.keepIdentities(ctx, dump)
}

// HandleSequences sends the values of all sequences.
func (l *Link) HandleSequences(ctx context.Context, request SessionReference, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/sequences"})
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		return new(sequence.Reader).Read(ctx, conn, true)
	})
}

func (l *Link) schemaSource() *schema.Source {
	return &schema.Source{DSN: l.dsn, Name: l.Name(), Find: instance.FindClient, Dir: l.place.Spool.Dir()}
}

// keepIdentities gives the twin's tables the replica identities that the
// primary's had before the link: it is the primary alone that needs FULL.
func (l *Link) keepIdentities(ctx context.Context, dump *schema.Dump) error {
	source := l.source()
	var formers []capture.Former
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
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

// answer works a value out while the link serves, and sends it.
func (l *Link) answer(ctx context.Context, ref Reference, s *peer.Stream, f func(context.Context) (any, error)) error {
	ctx, leave, err := l.enter(ctx, ref)
	if err != nil {
		return err
	}
	defer leave()
	value, err := f(ctx)
	if err != nil {
		return err
	}
	return flow.Reply(s, value)
}

// HandleCopy sends a chunk.
func (l *Link) HandleCopy(ctx context.Context, request CopyRequest, s *peer.Stream) error {
	return l.answerRows(ctx, request.Reference, s, request.Compress, func(ctx context.Context, w io.Writer) (int64, error) {
		return l.supply().Copy(ctx, request.Token, request.CopyRequest, w)
	})
}

// answerRows sends the rows that a function writes while the link serves, and how many there were.
func (l *Link) answerRows(ctx context.Context, ref Reference, s *peer.Stream, compress bool, rows func(context.Context, io.Writer) (int64, error)) error {
	ctx, leave, err := l.enter(ctx, ref)
	if err != nil {
		return err
	}
	defer leave()
	return flow.ReplyRows(ctx, s, compress, rows)
}
