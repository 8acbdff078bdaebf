package link

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/wire"
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
	return FetchRows(ctx, m.link.place.Peers, m.link.Peer(), MethodCopy, request, request.Compress, w)
}

// FetchRows fetches rows of a peer as COPY data, and returns how many they are. compressed
// must be what the request says.
func FetchRows(ctx context.Context, peers Peers, name, method string, request any, compressed bool, w io.Writer) (int64, error) {
	result, err := Fetch(ctx, peers, name, method, request, compressed, w)
	if err != nil {
		return 0, err
	}
	var closing CopyResult
	if err := wire.Decode(result, &closing, wire.Room(len(result))); err != nil {
		return 0, problem.Wrap(err, problem.Transient, "stream_ended", "read the end of %s", method)
	}
	return closing.Rows, nil
}

func (m *remote) schema(ctx context.Context, token string) (*schema.Dump, error) {
	return ask[*schema.Dump](ctx, m.link, MethodSchema, m.session(token))
}

func (m *remote) sequences(ctx context.Context) ([]sequence.Sequence, error) {
	return ask[[]sequence.Sequence](ctx, m.link, MethodSequences, m.session(""))
}

// maxAnswer bounds an answer that is held in memory: the structure of a database
// of a hundred thousand tables.
const maxAnswer = 256 << 20

// answerRoom is what such an answer may take when it is read, beside as much as its text.
const answerRoom = 256 << 20

// ask asks the link's other side (Ask).
func ask[T any](ctx context.Context, l *Link, method string, request any) (T, error) {
	return Ask[T](ctx, l.place.Peers, l.Peer(), method, request)
}

// Ask fetches an answer of a peer that may be too large for a call, as JSON. Reply sends it.
func Ask[T any](ctx context.Context, peers Peers, name, method string, request any) (T, error) {
	var answer T
	var b bytes.Buffer
	if _, err := Fetch(ctx, peers, name, method, request, true, &limited{&b}); err != nil {
		return answer, err
	}
	if err := wire.Decode(b.Bytes(), &answer, answerRoom+b.Len()); err != nil {
		return answer, problem.Wrap(err, problem.Transient, "stream_ended", "read the answer to %s", method)
	}
	return answer, nil
}

type limited struct{ b *bytes.Buffer }

func (w *limited) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > maxAnswer {
		return 0, problem.New(problem.Resource, "answer_too_large", "the primary's answer is larger than %d bytes", maxAnswer)
	}
	return w.b.Write(p)
}

// fetch fetches bytes of the link's other side (Fetch).
func (l *Link) fetch(ctx context.Context, method string, request any, compressed bool, w io.Writer) ([]byte, error) {
	return Fetch(ctx, l.place.Peers, l.Peer(), method, request, compressed, w)
}

// Fetch opens a stream to a peer and writes its bytes to w. It returns the payload of the
// closing frame. compressed must be what the request says.
func Fetch(ctx context.Context, peers Peers, name, method string, request any, compressed bool, w io.Writer) ([]byte, error) {
	s, err := peers.Open(ctx, name, method, request)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	in := &frameReader{stream: s}
	var source io.Reader = in
	if compressed {
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		source = z
	}
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{source}, make([]byte, 256<<10)); err != nil {
		return nil, err
	}
	// What is behind the compressed bytes: the result, or the reason of the end.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	if in.result == nil {
		return nil, problem.Wrap(errors.New("the closing words are missing"), problem.Transient, "stream_ended", "read the answer to %s", method)
	}
	return in.result, nil
}

var _ seed.Remote = (*remote)(nil)
