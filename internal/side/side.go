// Package side holds one side of a link: its record, which is stored in the database before
// anything acts on it, what stands against the link there, and the session to the database.
// What a side does to databases is the work of other packages over it, which have their own
// state.
//
// Order of locks, from the outermost: the session (Session.Do, held during I/O), the lock of
// a package over this one, the side's own. The side's own is never held during I/O, nor while
// anything outside this package is called.
package side

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// Peers is how a link reaches the other side's agent.
type Peers interface {
	Call(ctx context.Context, peer, method string, request, response any) error
	flow.Peers
}

// Side is one side of a link. What is exported is not changed after New.
type Side struct {
	DSN      *pg.DSN // of the linked database
	Database string
	Peers    Peers
	Log      *slog.Logger
	Session  *Session
	// Turned is told of every change of role, phase or epoch, in order, once it is known to be
	// stored. It is called in the session; nil for nobody.
	Turned func(before, after catalog.Link)

	mu       sync.Mutex // guards what follows
	record   catalog.Link
	unsure   bool                      // record may be older than what is stored
	changed  chan struct{}             // closed and replaced when the record changes
	suspect  bool                      // the other side may have another epoch
	trouble  *problem.Error            // what keeps the link from its work
	warnings map[string]*problem.Error // what does not, by code
	phased   time.Time                 // when the phase began; zero where that was before the agent's start
	doing    Doing
}

// New returns the side that a record describes.
func New(dsn *pg.DSN, database string, peers Peers, log *slog.Logger, record catalog.Link) *Side {
	return &Side{
		DSN: dsn, Database: database, Peers: peers, Log: log, Session: &Session{DSN: dsn, Name: record.Name},
		record: record, changed: make(chan struct{}),
	}
}

// ID returns the link's id, the same on both sides.
func (s *Side) ID() string { return s.Record().ID }

// Name returns the link's name, the same on both sides.
func (s *Side) Name() string { return s.Record().Name }

// Peer returns the name of the other side's agent.
func (s *Side) Peer() string { return s.Record().Peer }

// Role returns what this side is.
func (s *Side) Role() role.Role { return role.Role(s.Record().Role) }

// Record returns the record as it is known to be stored.
func (s *Side) Record() catalog.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// Watch returns the record and a channel that is closed when it changes.
func (s *Side) Watch() (catalog.Link, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record, s.changed
}

// Wait pauses, but not beyond a change of the record.
func (s *Side) Wait(ctx context.Context, pause time.Duration) {
	_, changed := s.Watch()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-time.After(pause):
	}
}

// Announce wakes whoever watches the record, or what the link does because of it.
func (s *Side) Announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announceLocked()
}

func (s *Side) announceLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// State is how a record says that its side stands.
func State(r catalog.Link) role.State {
	return role.State{Role: role.Role(r.Role), Phase: role.Phase(r.Phase), Epoch: r.Epoch, Seeded: r.Seeded, Diverged: r.Diverged, Operation: r.Operation}
}

// Put writes a state into a record.
func Put(s role.State, r *catalog.Link) {
	r.Role, r.Phase, r.Epoch, r.Seeded, r.Diverged, r.Operation = string(s.Role), string(s.Phase), s.Epoch, s.Seeded, s.Diverged, s.Operation
}

// Follows says whether the secondary has a whole copy that it keeps in step. A
// link that is broken counts: what is carried beside the stream goes on.
func Follows(r catalog.Link) bool {
	return role.Role(r.Role) == role.Secondary && r.Seeded && !r.Suspended && !r.Deleting
}
