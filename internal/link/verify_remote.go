package link

import (
	"context"
	"io"

	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/verify"
)

// remoteSide is the primary's side of a verification, as the secondary reaches
// it. It implements verify.Source.
type remoteSide struct {
	link *Link
	held SessionReference
}

// Describe implements verify.Side.
func (m *remoteSide) Describe(ctx context.Context) (*verify.Database, error) {
	return readAt[*verify.Database](ctx, m, VerifyRead{})
}

// contents is Describe without the objects of the schema.
func (m *remoteSide) contents(ctx context.Context) (*verify.Database, error) {
	return readAt[*verify.Database](ctx, m, VerifyRead{Contents: true})
}

// Digest implements verify.Side.
func (m *remoteSide) Digest(ctx context.Context, r verify.DigestRequest) ([]verify.Block, error) {
	return readAt[[]verify.Block](ctx, m, VerifyRead{Digest: &r})
}

// List implements verify.Side.
func (m *remoteSide) List(ctx context.Context, r verify.ListRequest) (verify.List, error) {
	return readAt[verify.List](ctx, m, VerifyRead{List: &r})
}

// Values implements verify.Side.
func (m *remoteSide) Values(ctx context.Context, r verify.ValuesRequest) ([]verify.Row, error) {
	return readAt[[]verify.Row](ctx, m, VerifyRead{Values: &r})
}

// Copy implements verify.Source.
func (m *remoteSide) Copy(ctx context.Context, r verify.CopyRequest, w io.Writer) error {
	_, err := flow.Fetch(ctx, m.link.place.Peers, m.link.Peer(), MethodVerifyRead, VerifyRead{SessionReference: m.held, Copy: &r}, true, w)
	return err
}

// readAt fetches an answer as JSON.
func readAt[T any](ctx context.Context, m *remoteSide, r VerifyRead) (T, error) {
	r.SessionReference = m.held
	return ask[T](ctx, m.link, MethodVerifyRead, r)
}

var _ verify.Source = (*remoteSide)(nil)
