package peer

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// maxMemberAnswer bounds what a host that becomes a member is told: the files that the members share, a thousand peers among them.
const maxMemberAnswer = 32 << 20

// memberPatience is how long the inviter may take to answer: it changes the etcds of its instance meanwhile.
const memberPatience = time.Minute

// memberRequest is what a host says that wants to become a member. As at pairing, the connection is pinned to the inviter's key by then.
type memberRequest struct {
	Min     int             `json:"min"` // protocol versions, as in a hello
	Max     int             `json:"max"`
	ID      []byte          `json:"id"`
	Secret  []byte          `json:"secret"`
	Product string          `json:"product"`
	Body    json.RawMessage `json:"body"` // the members' own affair
}

// JoinInstance asks the agent that made the token (InviteMember) to let this host become a member of its instance, and returns its answer. The host has no
// identity yet: it gets the instance's by the answer, which therefore is a secret.
func JoinInstance(ctx context.Context, text, product string, request []byte) (answer []byte, err error) {
	t, err := parseToken(text)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(t.Expires) {
		return nil, problem.New(problem.Unauthorised, "invitation_expired", "the invitation expired at %s", t.Expires.Format(time.RFC3339)).
			WithHint("ask for a new one: 'twinspan member invite'")
	}
	c, err := newCredential("member", newUUID(), time.Now())
	if err != nil {
		return nil, problem.Wrap(err, problem.Internal, "internal", "make a key for the request")
	}
	e := &Endpoint{Identity: &Identity{name: "member", current: c}, Product: product}
	body, err := json.Marshal(memberRequest{Min: protocolMin, Max: protocolMax, ID: t.ID[:], Secret: t.Secret[:], Product: product, Body: request})
	if err != nil {
		return nil, err
	}
	var failed error
	for _, address := range t.Addresses {
		answer, reached, err := e.joinInstanceAt(ctx, address, t, body)
		if err == nil || reached || ctx.Err() != nil {
			return answer, err
		}
		if failed == nil || problem.KindOf(failed) == problem.Transient {
			failed = err
		}
	}
	return nil, failed
}

func (e *Endpoint) joinInstanceAt(ctx context.Context, address string, t token, body []byte) (answer []byte, reached bool, err error) {
	pinned := func(f string) bool {
		return subtle.ConstantTimeCompare([]byte(f), []byte(printFingerprint(t.Fingerprint))) == 1
	}
	conn, _, err := e.connect(ctx, address, e.clientTLS(memberProtocol, pinned))
	if err != nil {
		return nil, false, joinProblem(err, t.Name, address)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	if err := conn.SetDeadline(time.Now().Add(memberPatience)); err != nil {
		return nil, true, joinProblem(err, t.Name, address)
	}
	if _, err := conn.Write(appendFrame(nil, framePair, body)); err != nil {
		return nil, true, joinProblem(err, t.Name, address)
	}
	kind, payload, err := readFrame(conn, nil, maxMemberAnswer, nil)
	switch {
	case err != nil:
		return nil, true, joinProblem(err, t.Name, address)
	case kind == frameError:
		return nil, true, joinProblem(decodeFault(payload), t.Name, address)
	case kind != framePair:
		return nil, true, protocolError("unexpected frame kind %#x in the answer to a member", kind)
	}
	return payload, true, nil
}

// serveMember hears one request of a host that wants to become a member, and answers it.
func (e *Endpoint) serveMember(ctx context.Context, conn *tls.Conn, certificate *x509.Certificate) error {
	kind, payload, err := readFrame(conn, nil, maxPairing, nil)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "pairing_failed", "no request of a member came")
	}
	if err := conn.SetDeadline(time.Now().Add(memberPatience)); err != nil {
		return problem.Wrap(err, problem.Transient, "pairing_failed", "bound the time of the answer")
	}
	answer, err := e.admitMember(ctx, kind, payload, certificate)
	out := appendFrame(nil, framePair, answer)
	if err != nil {
		out = appendFrame(nil, frameError, encodeFault(err))
	}
	if _, writeErr := conn.Write(out); writeErr != nil && err == nil {
		err = problem.Wrap(writeErr, problem.Transient, "pairing_failed", "the answer was not sent")
	}
	return err
}

func (e *Endpoint) admitMember(ctx context.Context, kind byte, payload []byte, certificate *x509.Certificate) (answer []byte, err error) {
	if !e.pairPace.allow(time.Now()) {
		return nil, problem.New(problem.Transient, "pairing_busy", "too many attempts to join at the moment").WithHint("try again in some seconds")
	}
	var r memberRequest
	if kind != framePair || json.Unmarshal(payload, &r) != nil || len(r.ID) != tokenID || len(r.Secret) != tokenSecret {
		return nil, protocolError("the request to become a member cannot be understood")
	}
	mine, theirs := hello{Min: protocolMin, Max: protocolMax, Product: e.Product}, hello{Min: r.Min, Max: r.Max, Product: line(clip(r.Product, 200))}
	if _, err := commonVersion(theirs, mine); err != nil {
		return nil, err
	}
	// A refusal leaves the invitation as it is.
	admit := func() (err error) {
		if e.Admit == nil {
			return problem.New(problem.Incompatible, "member_none", "the inviting agent is no member of an instance with several servers").
				WithHint("invite at the agent of the member that leads: twinspan member list names it")
		}
		answer, err = e.Admit(ctx, r.Body)
		return err
	}
	err = e.redeem([tokenID]byte(r.ID), r.Secret, true, Fingerprint(certificate), time.Now(), admit, func([]Grant) error { return nil })
	return answer, err
}
