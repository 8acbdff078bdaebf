package flow

import (
	"encoding/json"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/wire"
)

// Writer is a byte stream in the data frames of a peer stream, compressed where that is
// asked for: one zstd frame whose blocks end where it is flushed. One goroutine uses it.
type Writer struct {
	stream *peer.Stream
	zstd   *zstd.Encoder
}

// frameSize is how many bytes go into one frame.
const frameSize = 256 << 10

// window is how far back the compression looks, and what the other side has to
// keep: small, for there is one for each link.
const window = 512 << 10

// NewWriter returns the byte stream in a peer stream, which remains the caller's. The other
// side must know whether it is compressed.
func NewWriter(s *peer.Stream, compress bool) (*Writer, error) {
	out := &Writer{stream: s}
	if !compress {
		return out, nil
	}
	var err error
	out.zstd, err = zstd.NewWriter(frames{s}, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	return out, err
}

// Write implements io.Writer. It waits while the other side does not read.
func (w *Writer) Write(p []byte) (int, error) {
	if w.zstd != nil {
		return w.zstd.Write(p)
	}
	return frames{w.stream}.Write(p)
}

// Flush sends what was kept back to be compressed.
func (w *Writer) Flush() error {
	if w.zstd != nil {
		return w.zstd.Flush()
	}
	return nil
}

// Finish ends the byte stream and sends the closing frame, which holds the result as JSON.
func (w *Writer) Finish(result any) error {
	if w.zstd != nil {
		if err := w.zstd.Close(); err != nil {
			return err
		}
	}
	body, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return w.stream.WriteFrame(wire.FrameResult, body)
}

// Close frees what the compression holds. The byte stream is not finished by it.
func (w *Writer) Close() {
	if w.zstd != nil {
		w.zstd.Reset(nil)
	}
}

// frames cuts a byte stream into data frames.
type frames struct{ s *peer.Stream }

func (f frames) Write(p []byte) (int, error) {
	for at := 0; at < len(p); at += frameSize {
		if err := f.s.WriteFrame(wire.FrameData, p[at:min(at+frameSize, len(p))]); err != nil {
			return at, err
		}
	}
	return len(p), nil
}

// expand returns the bytes that a Writer has compressed.
func expand(from io.Reader) (*zstd.Decoder, error) {
	// One block ahead at most: a small flush must come through at once.
	return zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
}

// frameReader is the byte stream in the data frames of a peer stream.
type frameReader struct {
	stream *peer.Stream
	rest   []byte
	bytes  *atomic.Uint64
	result []byte // the payload of the closing frame, once it came
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		kind, payload, err := f.stream.ReadFrame()
		if err != nil {
			return 0, err
		}
		switch kind {
		case wire.FrameData:
			f.rest = payload
		case wire.FrameResult:
			f.result = append([]byte(nil), payload...)
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	if f.bytes != nil {
		f.bytes.Add(uint64(n))
	}
	return n, nil
}
