package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// limit reads a slot as fast as the server decodes it and does nothing with what
// comes: no follower of one slot can be faster.
type limit struct {
	r     *rig
	label string
	over  way
	turn  int // before which of the others
}

// slot is a name of its own for each way to the server.
func (l *limit) slot() string { return "bench_limit_" + string(l.over) }

func (l *limit) establish(ctx context.Context) error {
	return l.r.a.exec(ctx, source, `SELECT pg_create_logical_replication_slot('`+l.slot()+`', 'pgoutput')`)
}

// advance lets go of the log up to now.
func (l *limit) advance(ctx context.Context) error {
	return l.r.a.exec(ctx, source, `SELECT pg_replication_slot_advance('`+l.slot()+`', pg_current_wal_lsn())`)
}

// drain reads the slot until a transaction at or behind the position has come.
func (l *limit) drain(ctx context.Context, end lsn.LSN) (s sample, err error) {
	dsn, err := pg.ParseDSN(l.r.a.conninfo(source, l.over))
	if err != nil {
		return s, err
	}
	conn, err := dsn.ConnectReplication(ctx, pg.Session{Name: "bench/limit"})
	if err != nil {
		return s, err
	}
	raw, err := pg.NewRaw(conn)
	if err != nil {
		return s, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	began := time.Now()
	m := l.r.measure(nil, nil)
	sql := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '2', streaming 'on', binary 'true', publication_names %s)", l.slot(), sqlname.Literal(publication))
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1))
	if _, err := raw.Conn().Write(append(append(message, sql...), 0)); err != nil {
		return s, err
	}
	if err := pass(raw, end); err != nil {
		return s, err
	}
	s.wall = time.Since(began).Seconds()
	u := m.spent()
	s.source, s.walsender = u.source, u.source
	return s, nil
}

// pass reads messages until a commit ends behind the position.
func pass(raw *pg.Raw, end lsn.LSN) error {
	raw.Gather(true)
	for {
		kind, _, err := raw.Next()
		if err != nil {
			return err
		}
		switch kind {
		case 'E':
			body, err := raw.Body(1 << 20)
			if err != nil {
				return err
			}
			return pg.ServerErrorFrom(body)
		case 'c':
			return problem.New(problem.Internal, "stream_ended", "the server ended the stream")
		case 'd':
			// XLogData: 'w', three 64-bit numbers, then pgoutput's message; of a Commit
			// the flags, its position and its end.
			head := make([]byte, 0, 43)
			for len(head) < cap(head) {
				b, err := raw.Take(cap(head) - len(head))
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
				head = append(head, b...)
			}
			if len(head) == 43 && head[0] == 'w' && head[25] == 'C' && lsn.LSN(binary.BigEndian.Uint64(head[35:])) >= end {
				return nil
			}
		}
	}
}
