package peer

import (
	"encoding/binary"
	"io"

	"github.com/twinspan/twinspan/internal/problem"
)

// MaxFrame bounds the payload of a frame, in bytes.
const MaxFrame = 1 << 20

// frameHeader is the size of what stands before a payload: the kind, then the
// payload's length, big-endian.
const frameHeader = 1 + 4

// FirstFreeKind is the lowest kind of frame that callers may use on a Stream; those
// below belong to this package.
const FirstFreeKind byte = 0x10

// The kinds of frames. docs/format/peer.md describes their payloads.
const (
	frameEnd     byte = 0x01 // nothing follows from this side; it is well
	frameError   byte = 0x02 // nothing follows from this side; it failed
	frameOpen    byte = 0x03 // the first frame of a call
	framePart    byte = 0x04 // a body's part, more follows
	frameLast    byte = 0x05 // a body's last part
	frameHello   byte = 0x06
	framePair    byte = 0x07
	framePing    byte = 0x08
	framePong    byte = 0x09
	frameAdopt   byte = 0x0a
	frameRetire  byte = 0x0b
	frameRetired byte = 0x0c
	frameStop    byte = 0x0d
	frameReset   byte = 0x0e
)

// putFrameHeader encodes a header into the first bytes of b.
func putFrameHeader(b []byte, kind byte, length int) {
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(length))
}

// appendFrame appends a whole frame to b.
func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// readFrame reads one frame into buf, which is grown as needed but never past limit: a
// longer frame is refused before memory is taken for it. The payload is part of the
// returned buffer. io.EOF means that the source ended between frames;
// io.ErrUnexpectedEOF, that it ended within one. admit, unless nil, is asked before memory is taken.
func readFrame(r io.Reader, buf []byte, limit int, admit func(length int) error) (kind byte, payload []byte, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, buf[:0], err
	}
	length := binary.BigEndian.Uint32(header[1:])
	if uint64(length) > uint64(limit) {
		return 0, buf[:0], problem.New(problem.Incompatible, "peer_protocol", "the peer announced a frame of %d bytes, the limit is %d", length, limit)
	}
	if uint32(cap(buf)) < length {
		if admit != nil {
			if err := admit(int(length)); err != nil {
				return 0, buf[:0], err
			}
		}
		buf = make([]byte, length)
	}
	buf = buf[:length]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, buf[:0], err
	}
	return header[0], buf, nil
}

func protocolError(text string, args ...any) *problem.Error {
	return problem.New(problem.Incompatible, "peer_protocol", text, args...)
}
