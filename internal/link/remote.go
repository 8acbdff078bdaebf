package link

import (
	"context"
	"io"

	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/upstream"
)

// remote is the primary's half of a seeding, as the secondary reaches it. It
// implements seed.Remote.
type remote struct {
	link     *Link
	systemID string // of the server that the session is on
}

func (m *remote) reference() Reference {
	r := m.link.side.Record()
	return side.ReferenceOf(r)
}

func (m *remote) session(token string) side.SessionReference {
	return side.SessionReference{Reference: m.reference(), Token: token}
}

// Begin implements seed.Remote.
func (m *remote) Begin(ctx context.Context, r seed.BeginRequest) (seed.Begun, error) {
	begun, err := side.Call[seed.Begun](ctx, m.link.side, upstream.MethodBegin, upstream.BeginRequest{Reference: m.reference(), BeginRequest: r})
	m.systemID = begun.SystemID
	if err == nil && m.link.side.Record().Timeline == 0 {
		// The stream begins at the first snapshot.
		err = m.link.followTimeline(ctx, begun.Timeline)
	}
	return begun, err
}

// Tables implements seed.Remote.
func (m *remote) Tables(ctx context.Context, token string) ([]seed.Table, error) {
	return side.Ask[[]seed.Table](ctx, m.link.side, upstream.MethodTables, m.session(token))
}

// End implements seed.Remote.
func (m *remote) End(ctx context.Context, token string) error {
	return side.Tell(ctx, m.link.side, upstream.MethodEnd, m.session(token))
}

// Copy implements seed.Remote.
func (m *remote) Copy(ctx context.Context, token string, r seed.CopyRequest, w io.Writer) (int64, error) {
	request := upstream.CopyRequest{SessionReference: m.session(token), CopyRequest: r, Compress: !m.link.peerIsLocal()}
	return flow.FetchRows(ctx, m.link.place.Peers, m.link.Peer(), upstream.MethodCopy, request, request.Compress, w)
}

func (m *remote) schema(ctx context.Context, token string) (*schema.Dump, error) {
	return side.Ask[*schema.Dump](ctx, m.link.side, upstream.MethodSchema, m.session(token))
}

var _ seed.Remote = (*remote)(nil)
