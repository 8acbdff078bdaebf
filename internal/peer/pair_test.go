package peer

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

func invite(t *testing.T, a *agent) string {
	t.Helper()
	text, err := a.Invite(0)
	check(t, err)
	return text
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if problem.CodeOf(err) != code {
		t.Errorf("%s: got %v (%s), want code %s", what, err, problem.CodeOf(err), code)
	}
	if err != nil && problem.As(err).Hint == "" {
		t.Errorf("%s: %v has no remedy", what, err)
	}
}

func TestInvitationsAreListedAndTakenBack(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	b.Listen = ""
	a.start(t)
	b.start(t)
	first, second := invite(t, a), invite(t, a)
	open, err := a.Invitations()
	if err != nil || len(open) != 2 || !open[0].Expires.After(open[0].Created) {
		t.Fatalf("open: %+v, %v", open, err)
	}
	_, err = b.Join(background(t), first, JoinOptions{})
	check(t, err)
	left, err := a.Invitations()
	if err != nil || len(left) != 1 {
		t.Fatalf("after one was used: %+v, %v", left, err)
	}
	check(t, a.Uninvite(left[0].ID))
	c := newAgent(t, "c")
	c.Listen = ""
	c.start(t)
	_, err = c.Join(background(t), second, JoinOptions{})
	wantCode(t, "a token that was taken back", err, "invitation_unknown")
	for _, o := range open {
		wantCode(t, "one that is used or taken back", a.Uninvite(o.ID), "invitation_unknown")
	}
	wantCode(t, "what is no identifier", a.Uninvite("../identity/key"), "invitation_unknown")
}

func TestInvitationMakesPeersOfBoth(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.Handle("echo", echo)
	b.Listen = ""
	a.start(t)
	b.start(t)
	text := invite(t, a)
	if strings.ContainsAny(text, " \n") || !strings.HasPrefix(text, "twinspan1:") {
		t.Errorf("the token is %q", text)
	}
	p, err := b.Join(background(t), " "+text+"\n", JoinOptions{})
	check(t, err)
	if p.Name != "a" || p.AgentID != a.Identity.AgentID() || p.Endpoint != a.Addr().String() || !slices.Equal(p.Fingerprints, []string{a.Identity.Fingerprint()}) {
		t.Errorf("b stored %+v", p)
	}
	q, ok := a.Book.Get("b")
	if !ok || q.AgentID != b.Identity.AgentID() || q.Endpoint != "" || !slices.Equal(q.Fingerprints, []string{b.Identity.Fingerprint()}) {
		t.Errorf("a stored %+v", q)
	}
	together(t, a, b)
	check(t, b.Call(background(t), "a", "echo", question{}, nil))
	// Both books are on disk.
	for _, x := range []*agent{a, b} {
		book, err := OpenBook(x.dir)
		check(t, err)
		if len(book.List()) != 1 || book.List()[0].Certificate == "" || book.List()[0].Expires().Before(time.Now().AddDate(9, 0, 0)) {
			t.Errorf("the book of %s holds %+v", x.name(), book.List())
		}
	}
	// The same agent may come again: it may not have heard the answer.
	check(t, b.Book.Remove("a"))
	_, err = b.Join(background(t), text, JoinOptions{})
	check(t, err)
	together(t, a, b)
	// Nobody else may.
	_, err = newAgent(t, "c").Join(background(t), text, JoinOptions{})
	wantCode(t, "second agent", err, "invitation_used")
	if len(a.Book.List()) != 1 {
		t.Errorf("a knows %v", a.Book.List())
	}
}

func TestOfTwoJoinersAtOnceOneWins(t *testing.T) {
	a := newAgent(t, "a").start(t)
	text := invite(t, a)
	var errs [4]error
	var wait sync.WaitGroup
	for i := range errs {
		joiner := newAgent(t, "joiner"+string(rune('0'+i)))
		wait.Go(func() { _, errs[i] = joiner.Join(background(t), text, JoinOptions{}) })
	}
	wait.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantCode(t, "loser", err, "invitation_used")
		}
	}
	if won != 1 || len(a.Book.List()) != 1 {
		t.Errorf("%d joined, %d stored", won, len(a.Book.List()))
	}
}

func TestInvitationExpires(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b")
	text, err := a.Invite(time.Second)
	check(t, err)
	tok, err := parseToken(text)
	check(t, err)
	await(t, "the invitation to expire", func() bool { return !time.Now().Before(tok.Expires) })
	_, err = b.Join(background(t), text, JoinOptions{})
	wantCode(t, "joiner's clock", err, "invitation_expired")
	// A joiner whose clock is behind, or that lies, is told by the inviter.
	tok.Expires = tok.Expires.Add(time.Hour)
	_, err = b.Join(background(t), tok.encode(), JoinOptions{})
	wantCode(t, "inviter's clock", err, "invitation_expired")
	for _, ttl := range []time.Duration{-1, time.Millisecond, 1000 * time.Hour} {
		_, err = a.Invite(ttl)
		wantCode(t, ttl.String(), err, "invitation_ttl")
	}
	if len(a.Book.List()) != 0 {
		t.Error("a stored a peer")
	}
}

func TestWrongSecretsRevokeAnInvitation(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b")
	text := invite(t, a)
	tok, err := parseToken(text)
	check(t, err)
	wrong := tok
	wrong.Secret[3] ^= 1
	for range maxWrong {
		_, err := b.Join(background(t), wrong.encode(), JoinOptions{})
		wantCode(t, "wrong secret", err, "invitation_unknown")
	}
	_, err = b.Join(background(t), text, JoinOptions{})
	wantCode(t, "right secret, too late", err, "invitation_revoked")
	tok.ID[0] ^= 1
	_, err = b.Join(background(t), tok.encode(), JoinOptions{})
	wantCode(t, "other id", err, "invitation_unknown")
	for err == nil || problem.CodeOf(err) == "invitation_unknown" {
		_, err = b.Join(background(t), tok.encode(), JoinOptions{})
	}
	wantCode(t, "many attempts", err, "pairing_busy")
	if len(a.Book.List())+len(b.Book.List()) != 0 {
		t.Error("a peer was stored")
	}
}

func TestNamesThatAreTakenLeaveTheInvitationUsable(t *testing.T) {
	a, b, other := newAgent(t, "a").start(t), newAgent(t, "b"), newAgent(t, "other")
	p, err := NewPeer("b", "", other.Identity.CertificatePEM())
	check(t, err)
	check(t, a.Book.Add(p))
	p.Name = "A"
	check(t, b.Book.Add(p))
	text := invite(t, a)
	_, err = b.Join(background(t), text, JoinOptions{})
	wantCode(t, "taken at the joiner", err, "peer_name_taken")
	_, err = b.Join(background(t), text, JoinOptions{As: "a2"})
	wantCode(t, "taken at the inviter", err, "peer_name_taken")
	if problem.KindOf(err) != problem.Conflict {
		t.Errorf("kind %s", problem.KindOf(err))
	}
	_, err = b.Join(background(t), text, JoinOptions{As: "../a", Name: "b2"})
	wantCode(t, "not a name", err, "peer_name")
	joined, err := b.Join(background(t), text, JoinOptions{As: "a2", Name: "b2"})
	check(t, err)
	if _, ok := a.Book.Get("b2"); !ok || joined.Name != "a2" {
		t.Errorf("a knows %v, b %v", a.Book.List(), joined)
	}
	// Known now, by the same keys: a new invitation refreshes, under the names they have.
	b.Advertise = "b.example:5022"
	joined, err = b.Join(background(t), invite(t, a), JoinOptions{})
	check(t, err)
	if q, _ := a.Book.Get("b2"); joined.Name != "a2" || q.Endpoint != "b.example:5022" || len(a.Book.List()) != 2 {
		t.Errorf("a knows %v, b %v", a.Book.List(), joined)
	}
	_, err = b.Join(background(t), invite(t, a), JoinOptions{As: "third"})
	wantCode(t, "known under another name", err, "peer_known")
}

func TestInvitationPinsTheInviter(t *testing.T) {
	a, b, other := newAgent(t, "a").start(t), newAgent(t, "b"), newAgent(t, "other").start(t)
	text := invite(t, a)
	tok, err := parseToken(text)
	check(t, err)
	tok.Addresses = []string{other.Addr().String()}
	_, err = b.Join(background(t), tok.encode(), JoinOptions{})
	wantCode(t, "another agent at the address", err, "invitation_key")
	if len(other.Book.List()) != 0 || strings.Contains(other.logs.String(), "joined") {
		t.Error("the other agent was asked")
	}
	// The right one may be at a later address.
	tok.Addresses = []string{"127.0.0.1:1", other.Addr().String(), a.Addr().String()}
	p, err := b.Join(background(t), tok.encode(), JoinOptions{})
	check(t, err)
	if p.Endpoint != a.Addr().String() {
		t.Errorf("stored %+v", p)
	}
	_, err = a.Join(background(t), invite(t, a), JoinOptions{})
	wantCode(t, "own invitation", err, "invitation_own")
	silent := newAgent(t, "silent")
	_, err = silent.Invite(0)
	wantCode(t, "agent that does not listen", err, "endpoint_silent")
	tok.Addresses = []string{"127.0.0.1:1"}
	_, err = silent.Join(background(t), tok.encode(), JoinOptions{})
	wantCode(t, "nobody there", err, "peer_unreachable")
}

func TestJoinerMustShowAnAgentsCertificate(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b")
	der, err := makeCertificate(b.Identity.credential().key, "b", "not-a-uuid", time.Now())
	check(t, err)
	err = knock(t, a, &tls.Config{NextProtos: []string{pairProtocol}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: b.Identity.credential().key}}})
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		t.Errorf("got %v", err)
	}
}

func TestByHand(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b").start(t)
	for _, x := range [][2]*agent{{a, b}, {b, a}} {
		certificate, endpoint := x[0].Export()
		p, err := NewPeer("", endpoint, certificate)
		check(t, err)
		check(t, x[1].Book.Add(p))
	}
	together(t, a, b)
	a.Advertise = "db1.example:5022"
	if _, endpoint := a.Export(); endpoint != "db1.example:5022" {
		t.Errorf("exports %q", endpoint)
	}
}

func TestNothingSecretIsLoggedOrStored(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b").start(t)
	text := invite(t, a)
	tok, err := parseToken(text)
	check(t, err)
	wrong := tok
	wrong.Secret[0] ^= 1
	_, wrongErr := b.Join(background(t), wrong.encode(), JoinOptions{})
	wantCode(t, "wrong secret", wrongErr, "invitation_unknown")
	_, err = b.Join(background(t), text, JoinOptions{})
	check(t, err)
	together(t, a, b)
	_, err = a.Rotate()
	check(t, err)
	await(t, "the rotation", func() bool { return !a.Rotation().Pending })
	a.Log.Info("token", "token", tok, "value", []any{tok})

	secrets := []string{strings.TrimPrefix(text, tokenPrefix)}
	for _, s := range [][]byte{tok.Secret[:], wrong.Secret[:]} {
		secrets = append(secrets, hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s), base64.RawURLEncoding.EncodeToString(s), string(s))
	}
	for _, x := range []*agent{a, b} {
		key, err := os.ReadFile(filepath.Join(x.dir, "identity", "key.pem"))
		check(t, err)
		block, _ := pem.Decode(key)
		seed := x.Identity.credential().key.Seed()
		secrets = append(secrets, base64.StdEncoding.EncodeToString(block.Bytes), hex.EncodeToString(seed), base64.StdEncoding.EncodeToString(seed))
	}
	everything := a.logs.String() + b.logs.String() + wrongErr.Error()
	files, err := filepath.Glob(filepath.Join(a.dir, "invitations", "*"))
	check(t, err)
	if len(files) != 1 {
		t.Errorf("invitation files: %v", files)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		check(t, err)
		everything += string(content)
	}
	if !strings.Contains(everything, "peer joined by invitation") || !strings.Contains(everything, "secret_sha256") {
		t.Error("the log or the file is not what this test means to read")
	}
	for i, s := range secrets {
		if strings.Contains(everything, s) {
			t.Errorf("secret %d is in a log or file", i)
		}
	}
}

// An invitation that was used is no way back: not after it has expired, not after the peer
// was removed, not with the key that the peer has since replaced.
func TestUsedInvitationLetsNobodyBack(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b")
	text := invite(t, a)
	_, err := b.Join(background(t), text, JoinOptions{})
	check(t, err)
	inv, err := parseToken(text)
	check(t, err)
	redeem := func(now time.Time) error {
		return a.redeem(inv.ID, inv.Secret[:], false, b.Identity.Fingerprint(), now, func() error { return nil }, func([]Grant) error { return nil })
	}
	check(t, redeem(inv.Expires.Add(-time.Second)))
	wantCode(t, "expired", redeem(inv.Expires), "invitation_expired")
	check(t, a.Remove("b"))
	check(t, b.Remove("a"))
	_, err = b.Join(background(t), text, JoinOptions{})
	wantCode(t, "removed", err, "invitation_unknown")
	// Removed without the file: by somebody who deleted the peer's own.
	text = invite(t, a)
	_, err = b.Join(background(t), text, JoinOptions{})
	check(t, err)
	check(t, a.Book.Remove("b"))
	_, err = b.Join(background(t), text, JoinOptions{})
	wantCode(t, "forgotten", err, "invitation_used")
	if len(a.Book.List()) != 0 {
		t.Errorf("a trusts %v", a.Book.List())
	}
	wantCode(t, "no such peer", a.Remove("b"), "peer_unknown")
}
