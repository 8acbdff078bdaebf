package side

import (
	"context"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// Reference names a link, with the epoch that the asking side knows.
type Reference struct {
	ID    string `json:"id"`
	Epoch int64  `json:"epoch"`
}

// SessionReference names a link and a session of its primary that holds a snapshot.
type SessionReference struct {
	Reference
	Token string `json:"token"`
}

// Request is what the other side asks of a link.
type Request interface {
	LinkID() string // of the link
}

// LinkID implements Request.
func (r Reference) LinkID() string { return r.ID }

// ReferenceOf names a link as its record does.
func ReferenceOf(r catalog.Link) Reference { return Reference{ID: r.ID, Epoch: r.Epoch} }

// Reference names the link as its record does now.
func (s *Side) Reference() Reference { return ReferenceOf(s.Record()) }

// SameEpoch refuses a side whose epoch is not ours: one of the two has missed a
// change of roles and must not act before it learned of it.
func (s *Side) SameEpoch(ref Reference) error {
	if mine := s.Record().Epoch; ref.Epoch != mine {
		if ref.Epoch > mine {
			s.Suspect()
		}
		return problem.New(problem.Conflict, "epoch_differs", "the request has epoch %d, the link is at %d", ref.Epoch, mine)
	}
	return nil
}

// SecondaryAt refuses what is asked of a secondary elsewhere: two sides that both
// took themselves for the primary would ask each other for ever.
func (s *Side) SecondaryAt(ref Reference) error {
	if err := s.SameEpoch(ref); err != nil {
		return err
	}
	if s.Role() != role.Secondary {
		return problem.New(problem.Conflict, "not_secondary", "this side is not the secondary of the link").On(s.Name())
	}
	return nil
}

// Misplaced says that one of the sides has not heard yet that they have changed places.
func Misplaced(p *problem.Error) bool {
	return p.Code == "epoch_differs" || p.Code == "not_primary" || p.Code == "not_secondary"
}

// Lasting says whether a problem stays until a person acts.
func Lasting(p *problem.Error) bool {
	switch p.Kind {
	case problem.Transient, problem.Cancelled:
		return false
	case problem.Unauthorised:
		// A password that is being changed; what the other side's operator may grant.
		return p.Code != "login_refused" && p.Code != "peer_not_granted"
	case problem.NotFound:
		return p.Code != "peer_unknown" // it was removed, and may be trusted again
	}
	return !Misplaced(p)
}

// Suspect notes that the other side may have another epoch: it is to be asked how it stands.
func (s *Side) Suspect() { s.setSuspect(true) }

// Trust takes that back.
func (s *Side) Trust() { s.setSuspect(false) }

func (s *Side) setSuspect(suspect bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspect = suspect
}

// Suspected says whether the other side may have another epoch.
func (s *Side) Suspected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspect
}

// Call asks the link's other side; the answer is small.
func Call[T any](ctx context.Context, s *Side, method string, request any) (answer T, err error) {
	err = s.Peers.Call(ctx, s.Peer(), method, request, &answer)
	return answer, err
}

// Tell asks the link's other side for what has no answer but that it is done.
func Tell(ctx context.Context, s *Side, method string, request any) error {
	return s.Peers.Call(ctx, s.Peer(), method, request, nil)
}

// Ask asks the link's other side for an answer of any size (flow.Ask).
func Ask[T any](ctx context.Context, s *Side, method string, request any) (T, error) {
	return flow.Ask[T](ctx, s.Peers, s.Peer(), method, request)
}

// OnSecondary returns what the secondary answers to its operator: here, where this side is it, and
// otherwise as the other side answers to the method.
func OnSecondary[T any](ctx context.Context, s *Side, method string, request any, here func(ctx context.Context) (T, error)) (T, error) {
	if s.Role() == role.Primary {
		return Call[T](ctx, s, method, request)
	}
	return here(ctx)
}

// DoOnSecondary is OnSecondary for what has no answer but that it is done.
func DoOnSecondary(ctx context.Context, s *Side, method string, request any, here func(ctx context.Context) error) error {
	if s.Role() == role.Primary {
		return Tell(ctx, s, method, request)
	}
	return here(ctx)
}
