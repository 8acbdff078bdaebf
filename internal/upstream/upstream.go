// Package upstream is what a primary gives its secondary: the snapshot of a first copy with what
// is read there, and the stream of changes. The secondary drives: it asks, the primary answers as
// long as the link serves.
package upstream

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
)

// With is what a primary's half takes from the link.
type With struct {
	Source func() capture.Source
	Spool  *flow.Spool // where a dump is written
	Log    *slog.Logger
}

// Primary is a primary's half of a first copy and of the stream.
type Primary struct {
	side    *side.Side
	service *side.Service
	with    With
	textual atomic.Bool // values of a type without a binary form were met: they cross as text

	mu     sync.Mutex   // guards what follows
	stream *running     // the stream that is being sent
	seeds  *seed.Source // holds the snapshot of a seeding; nil before the first was asked for
}

// New returns a primary's half, which answers as long as the service serves.
func New(s *side.Side, service *side.Service, with With) *Primary {
	return &Primary{side: s, service: service, with: with}
}
