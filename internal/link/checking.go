package link

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/wire"
)

// The bounds of a measurement of the network: long enough to fill a window, too
// short to be in anybody's way.
const (
	probeTime  = time.Second
	probeBytes = 32 << 20
	probeFrame = 256 << 10
)

// Probe sends bytes that do not compress to a peer, for a second at most, and
// returns how many of them got through in a second.
func Probe(ctx context.Context, peers Peers, name string) (rate float64, err error) {
	s, err := peers.Open(ctx, name, MethodProbe, struct{}{})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	frame := make([]byte, probeFrame)
	rand.Read(frame) // never fails (crypto/rand)
	start := time.Now()
	sent := 0
	for sent < probeBytes && time.Since(start) < probeTime {
		if err := s.WriteFrame(wire.FrameData, frame); err != nil {
			return 0, err
		}
		sent += len(frame)
	}
	if err := s.CloseWrite(); err != nil {
		return 0, err
	}
	// The other side's end says that all has arrived.
	if _, _, err := s.ReadFrame(); err != io.EOF {
		return 0, err
	}
	return float64(sent) / time.Since(start).Seconds(), nil
}

// TakeProbe is the other side of Probe.
func TakeProbe(s *peer.Stream) error {
	for taken := 0; taken <= 2*probeBytes; {
		_, payload, err := s.ReadFrame()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		taken += len(payload)
	}
	return nil
}
