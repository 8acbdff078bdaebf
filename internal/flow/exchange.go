package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"

	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

// Peers is how other agents are reached.
type Peers interface {
	Open(ctx context.Context, peer, method string, request any) (*peer.Stream, error)
	Status(peer string) (peer.Status, bool)
}

// IsLocal says whether a peer is on this machine: then compressing costs more than it saves.
func IsLocal(peers Peers, name string) bool {
	status, _ := peers.Status(name)
	host, _, err := net.SplitHostPort(status.Address)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// maxAnswer bounds an answer that is held in memory: the structure of a database
// of a hundred thousand tables.
const maxAnswer = 256 << 20

// answerRoom is what such an answer may take when it is read, beside as much as its text.
const answerRoom = 256 << 20

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
		return 0, problem.New(problem.Resource, "answer_too_large", "the peer's answer is larger than %d bytes", maxAnswer)
	}
	return w.b.Write(p)
}

// Reply sends a value as a compressed byte stream of JSON, for Ask.
func Reply(s *peer.Stream, value any) error {
	out, err := NewWriter(s, true)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(value); err != nil {
		return err
	}
	return out.Finish(struct{}{})
}

// counted is the closing frame of an answer that is rows.
type counted struct {
	Rows int64 `json:"rows"`
}

// FetchRows fetches rows of a peer as COPY data, and returns how many they are. compressed
// must be what the request says. ReplyRows sends them.
func FetchRows(ctx context.Context, peers Peers, name, method string, request any, compressed bool, w io.Writer) (int64, error) {
	result, err := Fetch(ctx, peers, name, method, request, compressed, w)
	if err != nil {
		return 0, err
	}
	var closing counted
	if err := wire.Decode(result, &closing, wire.Room(len(result))); err != nil {
		return 0, problem.Wrap(err, problem.Transient, "stream_ended", "read the end of %s", method)
	}
	return closing.Rows, nil
}

// ReplyRows sends the rows that a function writes, and how many there were, for FetchRows.
func ReplyRows(ctx context.Context, s *peer.Stream, compress bool, rows func(context.Context, io.Writer) (int64, error)) error {
	out, err := NewWriter(s, compress)
	if err != nil {
		return err
	}
	n, err := rows(ctx, out)
	if err != nil {
		return err
	}
	return out.Finish(counted{n})
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
		z, err := expand(in)
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

// WriteResult sends a value as one frame of JSON.
func WriteResult(s *peer.Stream, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.WriteFrame(wire.FrameResult, body)
}
