package peer

import (
	"context"
	"crypto"
	"encoding/json"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

const (
	announceMethod = "peer.rotate"  // "this key comes next: pin it too"
	proveMethod    = "peer.rotated" // "I use it now: drop the others"
	// rotationTimeout bounds one call of a rotation.
	rotationTimeout = 10 * time.Second
	// rotationRetry is when a call that failed is repeated, if nothing happens before.
	rotationRetry = 30 * time.Second
	// proofLabel names what is signed to prove a new key: keying material of the
	// connection (RFC 8446, 7.5), which nobody else has and no other connection repeats.
	proofLabel = "EXPERIMENTAL twinspan key rotation"
	proofSize  = 32
)

type announcement struct {
	Certificate string `json:"certificate"` // PEM
}

type proof struct {
	Signature []byte `json:"signature"` // of the connection's keying material
}

// Rotation is the state of a change of keys.
type Rotation struct {
	Pending bool     // a next key exists and is not in use yet
	Next    string   // its fingerprint
	Waiting []string // the peers that have not pinned it
}

// Rotation returns the state of a change of keys.
func (e *Endpoint) Rotation() Rotation {
	next, ok := e.Identity.upcoming()
	if !ok {
		return Rotation{}
	}
	r := Rotation{Pending: true, Next: next.fingerprint}
	for _, p := range e.Book.List() {
		if !e.Identity.hasConfirmed(p.Name) {
			r.Waiting = append(r.Waiting, p.Name)
		}
	}
	return r
}

// Rotate makes a new key and certificate. Peers are told as soon as they are connected and
// pin both keys. When all have, the new key replaces the old one, and the peers drop the
// old pin once they have seen the new key. Sessions are not interrupted. A rotation that
// is pending is a problem of kind Conflict.
func (e *Endpoint) Rotate() (Rotation, error) {
	if err := e.Identity.beginRotation(time.Now()); err != nil {
		return Rotation{}, err
	}
	r := e.Rotation()
	e.logger().Info("key rotation begun", "next", r.Next, "waiting", len(r.Waiting))
	if len(r.Waiting) == 0 {
		if err := e.Identity.completeRotation(); err != nil {
			return r, err
		}
		return Rotation{}, nil
	}
	e.wakeRotation()
	return r, nil
}

func (e *Endpoint) wakeRotation() {
	e.mu.Lock()
	e.prepareLocked()
	e.mu.Unlock()
	select {
	case e.rotate <- struct{}{}:
	default: // woken already
	}
}

// rotateAll pursues rotations until the context ends.
func (e *Endpoint) rotateAll(ctx context.Context) error {
	retry := time.NewTimer(rotationRetry)
	defer retry.Stop()
	for {
		if err := e.pursueRotation(ctx); err != nil && ctx.Err() == nil {
			e.logger().Warn("key rotation not advanced", "code", problem.CodeOf(err), "err", err)
		}
		retry.Reset(rotationRetry)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.rotate:
		case <-retry.C:
		}
	}
}

// pursueRotation tells the connected peers of the next key and, when all peers have
// pinned it, takes it into use.
func (e *Endpoint) pursueRotation(ctx context.Context) error {
	next, ok := e.Identity.upcoming()
	if !ok {
		return nil
	}
	var failed error
	for _, name := range e.Rotation().Waiting {
		if !e.Connected(name) {
			continue
		}
		err := e.announce(ctx, name, next)
		if err == nil {
			err = e.Identity.confirm(name)
		}
		if err != nil {
			failed = err
		}
	}
	if len(e.Rotation().Waiting) > 0 {
		return failed
	}
	if err := e.Identity.completeRotation(); err != nil {
		return err
	}
	e.logger().Info("key rotation complete", "fingerprint", next.fingerprint)
	for _, p := range e.Book.List() {
		// A peer that does not hear this drops the old key when it next connects.
		if err := e.prove(ctx, p.Name, next); err != nil {
			e.logger().Debug("new key not proved", "peer", p.Name, "err", err)
		}
	}
	return nil
}

func (e *Endpoint) announce(ctx context.Context, peer string, next credential) error {
	ctx, cancel := context.WithTimeout(ctx, rotationTimeout)
	defer cancel()
	return e.Call(ctx, peer, announceMethod, announcement{Certificate: string(next.pem)}, nil)
}

// prove shows a connected peer, on the connection there is, that the new key is in use.
func (e *Endpoint) prove(ctx context.Context, peer string, next credential) error {
	ctx, cancel := context.WithTimeout(ctx, rotationTimeout)
	defer cancel()
	s, err := e.sessionOf(peer)
	if err != nil {
		return err
	}
	material, err := s.material(s.dialled)
	if err != nil {
		return err
	}
	signature, err := next.key.Sign(nil, material, crypto.Hash(0)) // Ed25519 hashes itself
	if err != nil {
		return err
	}
	body, err := encodeBody(proof{Signature: signature})
	if err != nil {
		return err
	}
	st, err := s.begin(ctx, proveMethod, modeCall, body)
	if err != nil {
		return err
	}
	return st.take(nil)
}

// material returns what a side signs on this connection; the sides' differ.
func (s *session) material(dialled bool) ([]byte, error) {
	side := []byte("accepted")
	if dialled {
		side = []byte("dialled")
	}
	state := s.conn.ConnectionState()
	return state.ExportKeyingMaterial(proofLabel, side, proofSize)
}

// registerRotation registers the methods by which others' rotations arrive. They are
// served on the session itself, for its key and keying material.
func (e *Endpoint) registerRotation() {
	serve := func(h func(s *session, from Peer, body json.RawMessage) error) method {
		return method{mode: modeCall, serve: func(st *Stream, from Peer, body json.RawMessage) error {
			err := h(st.session, from, body)
			if err == nil {
				err = st.writeBody([]byte("{}"))
			}
			if err == nil {
				st.finished()
			}
			return err
		}}
	}
	e.methods[announceMethod] = serve(e.pinAnnounced)
	e.methods[proveMethod] = serve(e.dropReplaced)
}

// pinAnnounced pins the next key of a peer beside the one it has proved.
func (e *Endpoint) pinAnnounced(s *session, from Peer, body json.RawMessage) error {
	var a announcement
	if err := json.Unmarshal(body, &a); err != nil {
		return protocolError("an announced certificate cannot be understood")
	}
	next, err := NewPeer(from.Name, from.Endpoint, []byte(a.Certificate))
	if err != nil {
		return err
	}
	switch {
	case len(next.Fingerprints) != 1 || next.AgentID != from.AgentID || !from.trusts(s.key()):
		return problem.New(problem.Unauthorised, "peer_rotation", "the announced key is not one of this peer's").On(from.Name)
	case from.trusts(next.Fingerprints[0]):
		return nil
	}
	if err := e.Book.pinNext(from.Name, s.key(), next); err != nil {
		return err
	}
	s.log.Info("next key of peer pinned", "fingerprint", next.Fingerprints[0])
	return nil
}

// dropReplaced drops the old keys of a peer that has proved the newest.
func (e *Endpoint) dropReplaced(s *session, from Peer, body json.RawMessage) error {
	var p proof
	if err := json.Unmarshal(body, &p); err != nil {
		return protocolError("a proof cannot be understood")
	}
	newest := from.Fingerprints[len(from.Fingerprints)-1]
	list, err := parseCertificates([]byte(from.certificateOf(newest)))
	if err != nil {
		return err
	}
	material, err := s.material(!s.dialled)
	if err != nil {
		return err
	}
	if err := checkSignature(list[0], material, p.Signature); err != nil {
		return problem.New(problem.Unauthorised, "peer_rotation", "the proof of the new key is wrong").On(from.Name)
	}
	s.mu.Lock()
	s.fingerprint = newest
	s.mu.Unlock()
	if _, err := e.Book.settle(from.Name, newest); err != nil {
		return err
	}
	s.log.Info("old key of peer dropped")
	return nil
}
