package meet

import (
	"context"
	"io"

	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// Remote is the primary's side at a snapshot that its agent holds, as the secondary reaches
// it. It implements verify.Source.
type Remote struct {
	side *side.Side
	held side.SessionReference
}

// NewRemote returns the primary's side at the snapshot that a token names.
func NewRemote(s *side.Side, ref side.Reference, token string) *Remote {
	return &Remote{side: s, held: side.SessionReference{Reference: ref, Token: token}}
}

// Describe implements verify.Side.
func (m *Remote) Describe(ctx context.Context) (*verify.Database, error) {
	return ReadAt[*verify.Database](ctx, m, ReadRequest{})
}

// Contents is Describe without the objects of the schema.
func (m *Remote) Contents(ctx context.Context) (*verify.Database, error) {
	return ReadAt[*verify.Database](ctx, m, ReadRequest{Contents: true})
}

// Digest implements verify.Side.
func (m *Remote) Digest(ctx context.Context, r verify.DigestRequest) ([]verify.Block, error) {
	return ReadAt[[]verify.Block](ctx, m, ReadRequest{Digest: &r})
}

// List implements verify.Side.
func (m *Remote) List(ctx context.Context, r verify.ListRequest) (verify.List, error) {
	return ReadAt[verify.List](ctx, m, ReadRequest{List: &r})
}

// Values implements verify.Side.
func (m *Remote) Values(ctx context.Context, r verify.ValuesRequest) ([]verify.Row, error) {
	return ReadAt[[]verify.Row](ctx, m, ReadRequest{Values: &r})
}

// Copy implements verify.Source.
func (m *Remote) Copy(ctx context.Context, r verify.CopyRequest, w io.Writer) error {
	_, err := flow.Fetch(ctx, m.side.Peers, m.side.Peer(), MethodRead, ReadRequest{SessionReference: m.held, Copy: &r}, true, w)
	return err
}

// ReadAt fetches an answer as JSON.
func ReadAt[T any](ctx context.Context, m *Remote, r ReadRequest) (T, error) {
	r.SessionReference = m.held
	return side.Ask[T](ctx, m.side, MethodRead, r)
}

var _ verify.Source = (*Remote)(nil)
