package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lag"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

var errReplaced = problem.New(problem.Transient, "stream_replaced", "the secondary asked for the stream anew")

// HandleStream sends the secondary everything from a position on, until either
// side ends it.
func (p *Primary) HandleStream(ctx context.Context, request StreamRequest, s *peer.Stream) error {
	ctx, leave, err := p.service.Enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stream := capture.NewStream(p.with.Source(), request.Position)
	mine := &running{stop: stop, done: make(chan struct{}), stream: stream}
	if err := p.takeStream(ctx, mine); err != nil {
		return err
	}
	defer p.releaseStream(mine)

	var header StreamHeader
	err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		source := p.with.Source()
		var err error
		if header.Timeline, err = source.CheckTimeline(ctx, conn, request.Timeline, request.Position); err != nil {
			return err
		}
		if err := capture.CheckSlot(ctx, conn, stream.Object(), request.Position, p.side.Record().SystemID); err != nil {
			return err
		}
		if err := source.NoteExtensions(ctx, conn, request.Extensions); err != nil {
			return err
		}
		if err := source.NoteFormat(ctx, conn, request.Format); err != nil {
			return err
		}
		if err := source.PublishTables(ctx, conn); err != nil {
			return err
		}
		unportable, err := pg.UnportableTypes(ctx, conn)
		if err != nil {
			return err
		}
		err = conn.QueryRow(ctx, `SELECT pg_encoding_to_char(encoding), current_setting('server_version_num')::int / 10000
			FROM pg_database WHERE datname = current_database()`).Scan(&header.Encoding, &header.Major)
		stream.Binary = header.Major >= 14 && !request.Text && len(unportable) == 0 && !p.textual.Load()
		return pg.Classify(err, "describe the stream")
	})
	if err != nil {
		return err
	}
	stream.Encoding, stream.Timeline = header.Encoding, header.Timeline
	stream.Streamed = request.Streamed && header.Major >= 14 && request.Position >= p.side.Record().StartLSN
	first, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if err := s.WriteFrame(wire.FrameResult, first); err != nil {
		return err
	}
	sink, err := flow.NewWriter(s, request.Compress)
	if err != nil {
		return err
	}
	defer sink.Close()
	stream.Sink = sink
	// A secondary that has stopped reading holds up Write: only the stream's end
	// frees it.
	defer context.AfterFunc(ctx, func() { s.Close() })()
	go func() { stop(takeConfirmations(s, stream)) }()
	p.side.Log.Info("stream begins", "lsn", request.Position, "binary", stream.Binary, "compressed", request.Compress, "streamed", stream.Streamed)
	err = stream.Run(ctx)
	if problem.CodeOf(err) == "binary_unusable" {
		p.textual.Store(true)
	}
	p.side.Log.Info("stream ends", "lsn", stream.Sent(), "err", err)
	return err
}

// takeConfirmations moves the slot as the secondary confirms. It ends with the
// peer stream.
func takeConfirmations(s *peer.Stream, stream *capture.Stream) error {
	for {
		kind, payload, err := s.ReadFrame()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return problem.New(problem.Transient, "stream_ended", "the secondary ended the stream")
			}
			return err
		}
		if kind != wire.FrameConfirm {
			continue
		}
		c, err := wire.ParseConfirm(payload)
		if err != nil {
			return err
		}
		stream.Confirm(c.Durable)
	}
}

// Confirmed is what the twin has confirmed of the stream that runs; nothing
// while none does.
func (p *Primary) Confirmed() lsn.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream == nil {
		return 0
	}
	return p.stream.stream.Confirmed()
}

// Handing is the part of the last seconds that the stream was held up in sending.
func (p *Primary) Handing() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream == nil {
		return 0
	}
	return p.stream.handing.Per(time.Now(), p.stream.stream.Handing())[0]
}

// Sent is up to where the stream that runs was sent; 0 while none does.
func (p *Primary) Sent() lsn.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream == nil {
		return 0
	}
	return p.stream.stream.Sent()
}

// running is a stream in progress.
type running struct {
	stop   context.CancelCauseFunc
	done   chan struct{}
	stream *capture.Stream

	handing lag.Shares // how long it was held up in sending
}

// takeStream makes the caller's stream the only one of the link: an earlier one,
// whose secondary is gone or has come back, is ended first.
func (p *Primary) takeStream(ctx context.Context, next *running) error {
	for {
		p.mu.Lock()
		old := p.stream
		if old == nil {
			p.stream = next
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		old.stop(errReplaced)
		select {
		case <-old.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *Primary) releaseStream(r *running) {
	p.mu.Lock()
	if p.stream == r {
		p.stream = nil
	}
	p.mu.Unlock()
	close(r.done)
}
