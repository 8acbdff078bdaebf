package link

import (
	"context"
	"io"

	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
)

// remote is the primary's half of a seeding, as the secondary reaches it. It
// implements seed.Remote.
type remote struct {
	link     *Link
	systemID string // of the server that the session is on
}

func (m *remote) reference() Reference {
	r := m.link.snapshot()
	return Reference{ID: r.ID, Epoch: r.Epoch}
}

func (m *remote) session(token string) SessionReference {
	return SessionReference{Reference: m.reference(), Token: token}
}

// Begin implements seed.Remote.
func (m *remote) Begin(ctx context.Context, r seed.BeginRequest) (seed.Begun, error) {
	var begun seed.Begun
	err := m.link.place.Peers.Call(ctx, m.link.Peer(), MethodBegin, BeginRequest{Reference: m.reference(), BeginRequest: r}, &begun)
	m.systemID = begun.SystemID
	if err == nil && m.link.snapshot().Timeline == 0 {
		// The stream begins at the first snapshot.
		err = m.link.followTimeline(ctx, begun.Timeline)
	}
	return begun, err
}

// Tables implements seed.Remote.
func (m *remote) Tables(ctx context.Context, token string) ([]seed.Table, error) {
	return ask[[]seed.Table](ctx, m.link, MethodTables, m.session(token))
}

// End implements seed.Remote.
func (m *remote) End(ctx context.Context, token string) error {
	return m.link.place.Peers.Call(ctx, m.link.Peer(), MethodEnd, m.session(token), nil)
}

// Copy implements seed.Remote.
func (m *remote) Copy(ctx context.Context, token string, r seed.CopyRequest, w io.Writer) (int64, error) {
	request := CopyRequest{SessionReference: m.session(token), CopyRequest: r, Compress: !m.link.peerIsLocal()}
	return flow.FetchRows(ctx, m.link.place.Peers, m.link.Peer(), MethodCopy, request, request.Compress, w)
}

func (m *remote) schema(ctx context.Context, token string) (*schema.Dump, error) {
	return ask[*schema.Dump](ctx, m.link, MethodSchema, m.session(token))
}

func (m *remote) sequences(ctx context.Context) ([]sequence.Sequence, error) {
	return ask[[]sequence.Sequence](ctx, m.link, MethodSequences, m.session(""))
}

// ask asks the link's other side (flow.Ask).
func ask[T any](ctx context.Context, l *Link, method string, request any) (T, error) {
	return flow.Ask[T](ctx, l.place.Peers, l.Peer(), method, request)
}

var _ seed.Remote = (*remote)(nil)
