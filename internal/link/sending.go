package link

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

var errReplaced = problem.New(problem.Transient, "stream_replaced", "the secondary asked for the stream anew")

// HandleStream sends the secondary everything from a position on, until either
// side ends it.
func (l *Link) HandleStream(ctx context.Context, request StreamRequest, s *peer.Stream) error {
	ctx, leave, err := l.enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stream := capture.NewStream(l.source(), request.Position)
	mine := &running{stop: stop, done: make(chan struct{}), stream: stream}
	if err := l.takeStream(ctx, mine); err != nil {
		return err
	}
	defer l.releaseStream(mine)

	var header StreamHeader
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		source := l.source()
		var err error
		if header.Timeline, err = source.CheckTimeline(ctx, conn, request.Timeline, request.Position); err != nil {
			return err
		}
		if err := capture.CheckSlot(ctx, conn, stream.Object(), request.Position, l.snapshot().SystemID); err != nil {
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
		stream.Binary = header.Major >= 14 && !request.Text && len(unportable) == 0 && !l.textual.Load()
		return pg.Classify(err, "describe the stream")
	})
	if err != nil {
		return err
	}
	stream.Encoding, stream.Timeline = header.Encoding, header.Timeline
	stream.Streamed = request.Streamed && header.Major >= 14 && request.Position >= l.snapshot().StartLSN
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
	l.log.Info("stream begins", "lsn", request.Position, "binary", stream.Binary, "compressed", request.Compress, "streamed", stream.Streamed)
	err = stream.Run(ctx)
	if problem.CodeOf(err) == "binary_unusable" {
		l.textual.Store(true)
	}
	l.log.Info("stream ends", "lsn", stream.Sent(), "err", err)
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
