package peer

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

func TestIdentityFiles(t *testing.T) {
	a := newAgent(t, "a")
	key := filepath.Join(a.dir, "identity", "key.pem")
	info, err := os.Stat(key)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %o", info.Mode().Perm())
	}
	if strings.Contains(string(a.Identity.CertificatePEM()), "PRIVATE") || !uuidPattern.MatchString(a.Identity.AgentID()) || !strings.HasPrefix(a.Identity.Fingerprint(), "SHA256:") {
		t.Error("the identity is not as described")
	}
	again, err := LoadIdentity(a.dir)
	check(t, err)
	if again.Fingerprint() != a.Identity.Fingerprint() || again.AgentID() != a.Identity.AgentID() || again.Name() != "a" || !again.Expires().Equal(a.Identity.Expires()) {
		t.Error("loading gave another identity")
	}
	_, err = CreateIdentity(a.dir, "b")
	wantCode(t, "second identity", err, "identity_exists")
	_, err = CreateIdentity(t.TempDir(), "a/b")
	wantCode(t, "bad name", err, "peer_name")
	_, err = LoadIdentity(t.TempDir())
	wantCode(t, "no identity", err, "identity_missing")
	check(t, os.Chmod(key, 0o640))
	_, err = LoadIdentity(a.dir)
	wantCode(t, "readable key", err, "identity_exposed")
	check(t, os.Chmod(key, 0o600))
	other := newAgent(t, "b")
	stolen, err := os.ReadFile(filepath.Join(other.dir, "identity", "key.pem"))
	check(t, err)
	check(t, os.WriteFile(key, stolen, 0o600))
	if _, err := LoadIdentity(a.dir); problem.CodeOf(err) != "identity_broken" {
		t.Errorf("foreign key: got %v", err)
	}
}

func TestBookKeepsAndRefuses(t *testing.T) {
	a, b, c := newAgent(t, "a"), newAgent(t, "b"), newAgent(t, "c")
	changed := a.Book.Changed()
	a.know(t, b, "b.example:5022")
	select {
	case <-changed:
	default:
		t.Error("the change was not told")
	}
	pb, _ := a.Book.Get("b")
	pc, err := NewPeer("c", "", c.Identity.CertificatePEM())
	check(t, err)
	for name, p := range map[string]Peer{
		"peer_name_taken": {Name: "B", AgentID: pc.AgentID, Fingerprints: pc.Fingerprints},
		"peer_known":      {Name: "c", AgentID: pb.AgentID, Fingerprints: pc.Fingerprints},
		"peer_name":       {Name: ".c", AgentID: pc.AgentID, Fingerprints: pc.Fingerprints},
		"peer_endpoint":   {Name: "c", AgentID: pc.AgentID, Fingerprints: pc.Fingerprints, Endpoint: "host"},
	} {
		wantCode(t, name, a.Book.Add(p), name)
	}
	for name, p := range map[string]Peer{
		"peer_fingerprint": {Name: "c", AgentID: pc.AgentID},
		"peer_agent_id":    {Name: "c", AgentID: "x", Fingerprints: pc.Fingerprints},
		"peer_certificate": {Name: "c", AgentID: pc.AgentID, Fingerprints: pc.Fingerprints, Certificate: pb.Certificate},
	} {
		if err := a.Book.Add(p); problem.CodeOf(err) != name {
			t.Errorf("%s: got %v", name, err)
		}
	}
	check(t, a.Book.Add(pc))
	check(t, a.Book.SetEndpoint("c", "[::1]:5022"))
	wantCode(t, "endpoint", a.Book.SetEndpoint("c", "[::1]:0"), "peer_endpoint")
	wantCode(t, "unknown", a.Book.SetEndpoint("d", ""), "peer_unknown")
	wantCode(t, "unknown", a.Book.Remove("d"), "peer_unknown")
	again, err := OpenBook(a.dir)
	check(t, err)
	if !reflect.DeepEqual(again.List(), a.Book.List()) || len(again.List()) != 2 {
		t.Errorf("read\n%+v\nnot\n%+v", again.List(), a.Book.List())
	}
	if p, ok := again.ByFingerprint(pc.Fingerprints[0]); !ok || p.Endpoint != "[::1]:5022" {
		t.Errorf("by fingerprint: %+v %v", p, ok)
	}
	list := again.List()
	list[0].Fingerprints[0] = "changed"
	if again.List()[0].Fingerprints[0] == "changed" {
		t.Error("callers share memory with the book")
	}
	check(t, os.Remove(filepath.Join(a.dir, "peers", "c.pem"))) // the pins decide
	_, err = OpenBook(a.dir)
	check(t, err)
	for content, code := range map[string]string{"name = \"c\"\nsurprise = 1\n": "peers_broken", "": "peers_broken", "name = \"x\"": "peers_broken"} {
		check(t, os.WriteFile(filepath.Join(a.dir, "peers", "c.toml"), []byte(content), 0o644))
		if _, err := OpenBook(a.dir); problem.CodeOf(err) != code || !strings.Contains(problem.As(err).Subject, "c.toml") {
			t.Errorf("%q: got %v on %s", content, err, problem.As(err).Subject)
		}
	}
}

func TestPeerFileReadsWell(t *testing.T) {
	b := newAgent(t, "b")
	p, err := NewPeer("b", "h:1", b.Identity.CertificatePEM())
	check(t, err)
	text, err := encodePeer(p)
	check(t, err)
	for _, want := range []string{"name = 'b'\n", "agent_id = '" + p.AgentID, "# accepted keys", "endpoint = 'h:1'", p.Fingerprints[0], "added = 2"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	got, err := decodePeer("b", text)
	check(t, err)
	got.Certificate = p.Certificate
	if !reflect.DeepEqual(got, p) {
		t.Errorf("read %+v, not %+v", got, p)
	}
	for i := range text {
		if q, err := decodePeer("b", text[:i]); err == nil && !reflect.DeepEqual(q.Fingerprints, p.Fingerprints) {
			t.Errorf("a file cut after %d bytes was accepted: %+v", i, q)
		}
	}
}
