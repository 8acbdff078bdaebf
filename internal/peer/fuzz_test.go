package peer

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/twinspan/twinspan/internal/problem"
)

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, 0x10, []byte("hello")), frameEnd, nil))
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 10
		r := bytes.NewReader(b)
		var again, buf []byte
		for {
			kind, payload, err := readFrame(r, buf, limit, nil)
			if cap(payload) > limit {
				t.Fatalf("took %d bytes", cap(payload))
			}
			if err != nil {
				if err == io.EOF && !bytes.Equal(again, b) {
					t.Fatalf("%x became %x", b, again)
				}
				if err != io.EOF && err != io.ErrUnexpectedEOF && problem.CodeOf(err) != "peer_protocol" {
					t.Fatalf("got %v", err)
				}
				return
			}
			again = appendFrame(again, kind, payload)
			buf = payload
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(sampleToken().encode())
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parseToken(s)
		if err == nil && tok.encode() != strings.TrimSpace(s) {
			t.Fatalf("%q became %q", s, tok.encode())
		}
		// What stands behind the checksum, too.
		if body := []byte(s); len(body) >= tokenFixed+2 {
			if tok, ok := decodeToken(body); ok {
				again, err := parseToken(tok.encode())
				if err != nil || !reflect.DeepEqual(again, tok) {
					t.Fatalf("%#v became %#v, %v", tok, again, err)
				}
			}
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"min":1,"max":1,"agent":"00000000-0000-4000-8000-000000000000","name":"a","product":"x","boot":1,"clock":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		if !ValidName(h.Name) || !uuidPattern.MatchString(h.Agent) || strings.ContainsAny(h.Product, "\r\n\x00") {
			t.Fatalf("accepted %+v", h)
		}
		if v, err := commonVersion(h, h); err != nil || v != h.Max {
			t.Fatalf("%d, %v", v, err)
		}
	})
}

func FuzzJoin(f *testing.F) {
	f.Add([]byte(`{"min":1,"max":1,"id":"AAAAAAAAAAA=","secret":"AAAAAAAAAAAAAAAAAAAAAAAAAAA=","name":"a","endpoint":"h:1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeJoin(framePair, b)
		if err == nil && (len(r.ID) != tokenID || len(r.Secret) != tokenSecret || !ValidName(r.Name) || checkEndpoint(r.Endpoint) != nil) {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzFault(f *testing.F) {
	f.Add(encodeFault(problem.New(problem.Resource, "slots_used_up", "no slot").On("x").WithHint("more")))
	f.Add([]byte(`{"kind":"novel","code":"NOT A CODE","text":"a\nb"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := decodeFault(b)
		if !knownKind(p.Kind) || !codePattern.MatchString(p.Code) || p.Text == "" || strings.ContainsAny(p.Text+p.Hint+p.Subject, "\r\n") {
			t.Fatalf("got %+v", p)
		}
		again := decodeFault(encodeFault(p))
		if len(b) < maxFaultSubject && !reflect.DeepEqual(again, p) {
			t.Fatalf("%+v became %+v", p, again)
		}
	})
}

func FuzzPeerFile(f *testing.F) {
	f.Add([]byte("name = 'b'\nagent_id = '00000000-0000-4000-8000-000000000000'\nendpoint = 'h:1'\nfingerprints = ['SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU']\nadded = 2026-01-01T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePeer("b", b)
		if err != nil {
			return
		}
		text, err := encodePeer(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodePeer("b", text)
		if err != nil || !reflect.DeepEqual(again.Fingerprints, p.Fingerprints) || again.AgentID != p.AgentID || again.Endpoint != p.Endpoint || !again.Added.Equal(p.Added) {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

func FuzzCertificate(f *testing.F) {
	id, err := CreateIdentity(f.TempDir(), "a")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(id.CertificatePEM())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := NewPeer("x", "", b)
		if err == nil && (len(p.Fingerprints) == 0 || p.AgentID == "") {
			t.Fatalf("accepted %+v", p)
		}
	})
}

func TestFaultOfAnything(t *testing.T) {
	long := problem.New(problem.Invalid, "x", "%s", strings.Repeat("ü\x00", 100_000)).On(strings.Repeat("s", 10_000)).WithHint("%s", strings.Repeat("\x01", 100_000))
	b := encodeFault(long)
	if len(b) > maxFault || !utf8.Valid(b) {
		t.Errorf("encoded in %d bytes", len(b))
	}
	if got := decodeFault(b); got.Kind != problem.Invalid || got.Code != "x" {
		t.Errorf("got %+v", got)
	}
	if got := decodeFault(encodeFault(errors.New("plain"))); got.Kind != problem.Internal || got.Text != "plain" {
		t.Errorf("got %+v", got)
	}
	for _, b := range [][]byte{nil, []byte("{"), []byte(`[]`), make([]byte, maxFault+1)} {
		if got := decodeFault(b); got.Kind != problem.Internal || got.Text == "" {
			t.Errorf("%.20q gave %+v", b, got)
		}
	}
}
