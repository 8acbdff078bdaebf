package peer

import (
	"encoding/binary"
	"sync"

	"github.com/hashicorp/yamux"

	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// mostUnread bounds what the peer has sent on streams that this side does not read as fast: those
	// that the peer opened, which carry requests and confirmations, and those that are closed here. What is unread of
	// the others, at most a window each, is bounded by how many of them this side opens.
	mostUnread = 128 << 20
	// mostOpen is how many streams a peer has open at most, served or not.
	mostOpen = 8 * maxServed
)

// The multiplexer's header: version, type, flags, the stream's id, a length (spec.md of yamux).
const (
	muxData   = 0
	muxWindow = 1
	muxSYN    = 1
	muxFIN    = 4
	muxRST    = 8
)

// unread counts what lies in the multiplexer, which bounds each stream but neither their number nor what they hold
// together: a stream that was closed on one side takes what comes until the other side closes it.
type unread struct {
	dialled bool // this side opened the connection: its streams have odd ids

	// The bytes that arrive, one goroutine's.
	header [muxHeader]byte
	have   int
	body   uint32 // what is to come of a frame
	id     uint32 // whose it is

	mu      sync.Mutex
	streams map[uint32]*unreadStream
	total   int64 // of the streams that count
	theirs  int
}

type unreadStream struct {
	bytes         int64
	local, remote bool // closed by
}

func (u *unread) isTheirs(id uint32) bool { return (id%2 == 1) != u.dialled }

// arrived takes bytes as they come from the connection.
func (u *unread) arrived(b []byte) error {
	for len(b) > 0 {
		if u.body > 0 {
			n := min(uint32(len(b)), u.body)
			u.body, b = u.body-n, b[n:]
			if err := u.add(u.id, int64(n)); err != nil {
				return err
			}
			continue
		}
		n := copy(u.header[u.have:], b)
		u.have, b = u.have+n, b[n:]
		if u.have < muxHeader {
			break
		}
		u.have = 0
		kind, flags := u.header[1], binary.BigEndian.Uint16(u.header[2:])
		u.id = binary.BigEndian.Uint32(u.header[4:])
		if kind == muxData {
			u.body = binary.BigEndian.Uint32(u.header[8:])
		}
		if kind == muxData || kind == muxWindow {
			if err := u.flagged(u.id, flags); err != nil {
				return err
			}
		}
	}
	return nil
}

// flagged notes that the peer opens or closes a stream.
func (u *unread) flagged(id uint32, flags uint16) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.streams[id]
	if flags&muxSYN != 0 && s == nil && u.isTheirs(id) {
		if u.theirs++; u.theirs > mostOpen {
			return problem.New(problem.Incompatible, "peer_protocol", "the peer has opened more than %d streams", mostOpen)
		}
		u.streams[id] = &unreadStream{}
		return nil
	}
	if s == nil || flags&(muxFIN|muxRST) == 0 {
		return nil
	}
	s.remote = true
	if s.local || flags&muxRST != 0 {
		u.dropLocked(id, s)
	}
	return nil
}

func (u *unread) dropLocked(id uint32, s *unreadStream) {
	if u.isTheirs(id) {
		u.theirs--
	}
	if u.isTheirs(id) || s.local {
		u.total -= s.bytes
	}
	delete(u.streams, id)
}

func (u *unread) add(id uint32, n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.streams[id]
	if s == nil {
		return nil // over: the multiplexer drops it
	}
	s.bytes += n
	if u.isTheirs(id) || s.local {
		if u.total += n; u.total > mostUnread {
			return problem.New(problem.Incompatible, "peer_protocol", "the peer has sent more than %d bytes that nobody reads", mostUnread)
		}
	}
	return nil
}

// opened notes that this side has opened a stream.
func (u *unread) opened(id uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.streams[id] = &unreadStream{}
}

// read notes that bytes of a stream were read.
func (u *unread) read(id uint32, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.streams[id]; s != nil {
		s.bytes -= int64(n)
		if u.isTheirs(id) || s.local {
			u.total -= int64(n)
		}
	}
}

// closed notes that this side has closed a stream.
func (u *unread) closed(id uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.streams[id]
	if s == nil || s.local {
		return
	}
	if s.local = true; !u.isTheirs(id) {
		u.total += s.bytes
	}
	if s.remote {
		u.dropLocked(id, s)
	}
}

// counted reads a stream and counts.
type counted struct {
	*yamux.Stream
	unread *unread
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	c.unread.read(c.StreamID(), n)
	return n, err
}
