package peer

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// maxPairing bounds a message of the pairing exchange.
const maxPairing = 16 << 10

// joinRequest is what the joining agent says. The connection is pinned to the inviter's
// key by then, so the secret goes to nobody else. Its certificate is that of the connection.
type joinRequest struct {
	Min      int    `json:"min"` // protocol versions, as in a hello
	Max      int    `json:"max"`
	ID       []byte `json:"id"`
	Secret   []byte `json:"secret"`
	Name     string `json:"name"`     // what the joiner wants to be called there
	Endpoint string `json:"endpoint"` // where to dial it; empty: it dials
	Product  string `json:"product"`
}

// joinAnswer is what the inviter says once it has stored the joiner.
type joinAnswer struct {
	Name     string  `json:"name"`
	Endpoint string  `json:"endpoint"`
	Grants   []Grant `json:"grants,omitempty"` // what the joiner may ask for there, to tell people
}

// JoinOptions are the names by which two agents will know each other, if they are to
// differ from what the agents call themselves.
type JoinOptions struct {
	As   string // the inviter's name here
	Name string // this agent's name there
	// Grants are what the inviter may ask for here.
	Grants []Grant
}

// Join becomes the peer of the agent that made the invitation, and it of this one. An agent
// that is known already, by the same key, is refreshed. Names that are taken, here or
// there, are problems of kind Conflict that leave the invitation usable.
func (e *Endpoint) Join(ctx context.Context, text string, options JoinOptions) (Peer, error) {
	t, err := parseToken(text)
	if err != nil {
		return Peer{}, err
	}
	fingerprint := printFingerprint(t.Fingerprint)
	switch {
	case e.Identity.owns(fingerprint):
		return Peer{}, problem.New(problem.Conflict, "invitation_own", "this invitation is the agent's own").WithHint("use it at the other agent")
	case !time.Now().Before(t.Expires):
		return Peer{}, problem.New(problem.Unauthorised, "invitation_expired", "the invitation expired at %s", t.Expires.Format(time.RFC3339)).
			WithHint("ask for a new one: 'twinspan peer invite'")
	}
	name := options.As
	if known, ok := e.Book.ByFingerprint(fingerprint); ok && name == "" {
		name = known.Name
	}
	if name == "" {
		name = t.Name
	}
	if err := e.nameFree(name, fingerprint); err != nil {
		return Peer{}, err
	}
	if err := checkGrants(options.Grants); err != nil {
		return Peer{}, err
	}
	var failed error
	for _, address := range t.Addresses {
		p, reached, err := e.joinAt(ctx, address, t, name, options)
		if err == nil || reached || ctx.Err() != nil {
			return p, err
		}
		if failed == nil || problem.KindOf(failed) == problem.Transient {
			failed = err
		}
	}
	return Peer{}, failed
}

// nameFree refuses a name that another peer has, before anything is said to anybody.
func (e *Endpoint) nameFree(name, fingerprint string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return e.Book.check(Peer{Name: name, AgentID: nobody, Fingerprints: []string{fingerprint}})
}

// nobody is an agent id that no agent has.
const nobody = "00000000-0000-0000-0000-000000000000"

// joinAt tries one address. reached says that the inviter itself has answered there.
func (e *Endpoint) joinAt(ctx context.Context, address string, t token, name string, options JoinOptions) (p Peer, reached bool, err error) {
	myName := options.Name
	pinned := func(f string) bool {
		want := printFingerprint(t.Fingerprint)
		return subtle.ConstantTimeCompare([]byte(f), []byte(want)) == 1
	}
	conn, _, err := e.connect(ctx, address, e.clientTLS(pairProtocol, pinned))
	if err != nil {
		return Peer{}, false, joinProblem(err, t.Name, address)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	if myName == "" {
		myName = e.name()
	}
	answer, err := ask(conn, joinRequest{
		Min: protocolMin, Max: protocolMax, ID: t.ID[:], Secret: t.Secret[:], Name: myName, Endpoint: e.Advertise, Product: e.Product,
	})
	if err != nil {
		return Peer{}, true, joinProblem(err, t.Name, address)
	}
	p, err = e.paired(name, address, conn.ConnectionState().PeerCertificates[0])
	if err == nil {
		p.Grants = options.Grants
		err = e.trust(p)
	}
	if err != nil {
		return Peer{}, true, err
	}
	e.logger().Info("peer joined", "peer", p.Name, "its_name", answer.Name, "agent", p.AgentID, "fingerprint", p.Fingerprints[0], "endpoint", p.Endpoint)
	p, _ = e.Book.Get(p.Name)
	return p, true, nil
}

// paired makes the peer to store after pairing. One that is known keeps its pins: it may
// be in the middle of a rotation.
func (e *Endpoint) paired(name, endpoint string, certificate *x509.Certificate) (Peer, error) {
	p, err := NewPeer(name, endpoint, encodeCertificate(certificate.Raw))
	if err != nil {
		return Peer{}, err
	}
	if known, ok := e.Book.ByFingerprint(p.Fingerprints[0]); ok {
		p.Fingerprints, p.Certificate = known.Fingerprints, known.Certificate
	}
	return p, nil
}

// trust stores a peer after pairing.
func (e *Endpoint) trust(p Peer) error {
	if err := e.Identity.unconfirm(p.Name); err != nil {
		return err
	}
	return e.Book.Add(p)
}

func joinProblem(err error, peer, address string) error {
	p := connectProblem(err, peer, address)
	switch p.Code {
	case "peer_key_unknown":
		return problem.New(problem.Unauthorised, "invitation_key", "the agent at %s is not the one that made the invitation", address).On(peer).
			WithHint("check what listens there; if the inviting agent has changed its key meanwhile, ask for a new invitation")
	case "peer_refused":
		return problem.New(problem.Incompatible, "peer_refused", "the agent at %s does not accept invitations", address).On(peer).
			WithHint("run the same release of twinspan on both sides")
	}
	return p
}

// ask sends the request and waits for the answer.
func ask(conn io.ReadWriter, request joinRequest) (joinAnswer, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return joinAnswer{}, err
	}
	if _, err := conn.Write(appendFrame(nil, framePair, b)); err != nil {
		return joinAnswer{}, err
	}
	kind, payload, err := readFrame(conn, nil, maxFault, nil)
	if err != nil {
		return joinAnswer{}, err
	}
	var answer joinAnswer
	switch kind {
	case framePair:
		if json.Unmarshal(payload, &answer) != nil || !ValidName(answer.Name) || checkEndpoint(answer.Endpoint) != nil {
			return joinAnswer{}, protocolError("the answer to the invitation cannot be understood")
		}
		return answer, nil
	case frameError:
		return joinAnswer{}, decodeFault(payload)
	}
	return joinAnswer{}, protocolError("unexpected frame kind %#x in pairing", kind)
}

// servePairing hears one request of an agent that nobody knows yet, and answers it. The
// handshake's deadline still holds.
func (e *Endpoint) servePairing(conn *tls.Conn, certificate *x509.Certificate) error {
	kind, payload, err := readFrame(conn, nil, maxPairing, nil)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "pairing_failed", "no pairing request came")
	}
	answer, err := e.admitGuest(kind, payload, certificate)
	out := appendFrame(nil, frameError, nil)
	if err == nil {
		var b []byte
		if b, err = json.Marshal(answer); err == nil {
			out = appendFrame(nil, framePair, b)
		}
	}
	if err != nil {
		out = appendFrame(nil, frameError, encodeFault(err))
	}
	if _, writeErr := conn.Write(out); writeErr != nil && err == nil {
		err = problem.Wrap(writeErr, problem.Transient, "pairing_failed", "the answer was not sent")
	}
	return err
}

// admitGuest decides on a request to join.
func (e *Endpoint) admitGuest(kind byte, payload []byte, certificate *x509.Certificate) (joinAnswer, error) {
	if !e.pairPace.allow(time.Now()) {
		return joinAnswer{}, problem.New(problem.Transient, "pairing_busy", "too many attempts to join at the moment").WithHint("try again in some seconds")
	}
	r, err := decodeJoin(kind, payload)
	if err != nil {
		return joinAnswer{}, err
	}
	mine, theirs := hello{Min: protocolMin, Max: protocolMax, Product: e.Product}, hello{Min: r.Min, Max: r.Max, Product: r.Product}
	if _, err := commonVersion(theirs, mine); err != nil {
		return joinAnswer{}, err
	}
	fingerprint := Fingerprint(certificate)
	name := r.Name
	if known, ok := e.Book.ByFingerprint(fingerprint); ok {
		name = known.Name
	}
	p, err := e.paired(name, r.Endpoint, certificate)
	if err != nil {
		return joinAnswer{}, err
	}
	// Whether the name is free may be told only to who has the secret, and must be known
	// before the invitation is used up.
	err = e.redeem([tokenID]byte(r.ID), r.Secret, false, fingerprint, time.Now(), func() error { return e.Book.check(p) }, func(grants []Grant) error {
		p.Grants = grants
		return e.trust(p)
	})
	if problem.CodeOf(err) == "peer_name_taken" {
		return joinAnswer{}, problem.New(problem.Conflict, "peer_name_taken", "the inviting agent has another peer called %s", name).On(name).
			WithHint("join under another name, or remove the other peer there; the invitation is still good")
	}
	if err != nil {
		return joinAnswer{}, err
	}
	e.logger().Info("peer joined by invitation", "peer", p.Name, "agent", p.AgentID, "fingerprint", fingerprint, "endpoint", p.Endpoint)
	return joinAnswer{Name: e.name(), Endpoint: e.Advertise, Grants: p.Grants}, nil
}

func decodeJoin(kind byte, payload []byte) (joinRequest, error) {
	var r joinRequest
	if kind != framePair || len(payload) > maxPairing || json.Unmarshal(payload, &r) != nil || len(r.ID) != tokenID || len(r.Secret) != tokenSecret {
		return joinRequest{}, protocolError("the request to join cannot be understood")
	}
	r.Product = line(clip(r.Product, 200))
	if err := checkName(r.Name); err != nil {
		return joinRequest{}, err
	}
	return r, checkEndpoint(r.Endpoint)
}

// Export returns what another agent needs to add this one by hand: its certificate and its
// endpoint, "" if it has none that others could dial.
func (e *Endpoint) Export() (certificatePEM []byte, endpoint string) {
	if list, err := e.addresses(); err == nil {
		endpoint = list[0]
	}
	return e.Identity.CertificatePEM(), endpoint
}
