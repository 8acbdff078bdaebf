package peer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/twinspan/twinspan/internal/problem"
)

// maxControl bounds a frame on the control stream.
const maxControl = 4 + maxFault

// control is the first stream of a session, always opened by the side that dialled. On it
// travel heartbeats, the choice among several sessions, and the news that a stream was
// given up, which must not wait behind that stream's own bytes.
type control struct {
	stream  *yamux.Stream
	writing sync.Mutex
}

func (s *session) openControl() error {
	var err error
	if s.dialled {
		s.control.stream, err = s.mux.OpenStream()
	} else {
		ctx, cancel := context.WithTimeout(s.ctx, s.endpoint.times().handshake)
		defer cancel()
		if s.control.stream, err = s.mux.AcceptStreamWithContext(ctx); err == nil && s.control.stream.StreamID() != 1 {
			err = protocolError("the session did not begin with its control stream")
		}
	}
	if err != nil {
		return connectionBroke(err)
	}
	return nil
}

// send writes a frame on the control stream. An error means that the session is ending.
func (s *session) send(kind byte, payload []byte) error {
	s.control.writing.Lock()
	defer s.control.writing.Unlock()
	_, err := s.control.stream.Write(appendFrame(nil, kind, payload))
	if err != nil {
		return connectionBroke(err)
	}
	return nil
}

// tell sends news of a stream: its id, then a problem.
func (s *session) tell(kind byte, id uint32, why []byte) {
	if err := s.send(kind, append(binary.BigEndian.AppendUint32(nil, id), why...)); err != nil {
		s.log.Debug("stream news not sent", "err", err)
	}
}

// listen obeys the control stream.
func (s *session) listen() error {
	in := bufio.NewReader(counted{s.control.stream, s.link.unread})
	var buf []byte
	for {
		kind, payload, err := readFrame(in, buf, maxControl, nil)
		if err != nil {
			return connectionBroke(err)
		}
		buf = payload
		if err := s.obey(kind, payload); err != nil {
			return err
		}
	}
}

// obey acts on one control frame. Kinds it does not know are passed over: a later
// version may add hints.
func (s *session) obey(kind byte, payload []byte) error {
	switch kind {
	case framePing:
		if len(payload) != 8 {
			return protocolError("a ping of %d bytes", len(payload))
		}
		return s.send(framePong, binary.BigEndian.AppendUint64(payload, uint64(time.Now().UnixNano())))
	case framePong:
		if len(payload) != 16 {
			return protocolError("a pong of %d bytes", len(payload))
		}
		s.clock.pong(binary.BigEndian.Uint64(payload), int64(binary.BigEndian.Uint64(payload[8:])))
	case frameAdopt:
		if len(payload) != 8 {
			return protocolError("an adoption of %d bytes", len(payload))
		}
		return s.endpoint.adopted(s, binary.BigEndian.Uint64(payload))
	case frameError:
		return decodeFault(payload)
	case frameRetire:
		return s.endpoint.retire(s)
	case frameRetired:
		s.mu.Lock()
		s.retired = true
		s.mu.Unlock()
	case frameStop, frameReset:
		if len(payload) < 4 {
			return protocolError("news of a stream of %d bytes", len(payload))
		}
		s.news(kind, binary.BigEndian.Uint32(payload), decodeFault(payload[4:]))
	}
	return nil
}

// news acts on what the other side says of a stream.
func (s *session) news(kind byte, id uint32, why *problem.Error) {
	s.mu.Lock()
	st := s.streams[id]
	theirs := (id%2 == 1) != s.dialled // the dialling side's ids are odd
	if st == nil && kind == frameReset && theirs && id > s.accepted && len(s.early) < maxServed {
		s.early[id] = why
	}
	s.mu.Unlock()
	switch {
	case st == nil: // over already
	case kind == frameStop:
		st.stop(why)
	default:
		st.fail(why)
	}
}

// heartbeat makes sure that the other side hears something, and closes a session that
// another has replaced once its last stream is over.
func (s *session) heartbeat(ctx context.Context) error {
	tick := time.NewTicker(s.endpoint.times().ping)
	defer tick.Stop()
	for {
		if err := s.send(framePing, binary.BigEndian.AppendUint64(nil, s.clock.ping())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		s.mu.Lock()
		over := s.retiring && s.retired
		s.mu.Unlock()
		if over && s.mux.NumStreams() <= 1 {
			s.leave()
			if s.mux.NumStreams() <= 1 {
				return errReplaced
			}
		}
	}
}

// watch ends a session on which nothing has arrived for too long. It is apart from
// heartbeat, whose writes may wait behind other streams' bytes.
func (s *session) watch(ctx context.Context) error {
	times := s.endpoint.times()
	tick := time.NewTicker(times.ping)
	defer tick.Stop()
	last := time.Now()
	var grace time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		// A process that slept itself must first read what has arrived meanwhile.
		if now := time.Now(); now.Sub(last) > times.dead/2 {
			grace = now.Add(times.dead)
		}
		last = time.Now()
		if s.link.silence() > times.dead && last.After(grace) {
			return problem.New(problem.Transient, "peer_silent", "nothing came from peer %s for %s", s.peer, times.dead).On(s.peer)
		}
	}
}

// errReplaced ends a session whose place another has taken.
var errReplaced = errors.New("another connection took this one's place")
