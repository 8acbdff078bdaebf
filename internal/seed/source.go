package seed

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Source is the primary's half of a link's seeding: it holds one session at a
// time and answers what the secondary asks. It implements Remote. A broken peer
// connection does not touch the session. Close must be called in the end.
type Source struct {
	DSN  *pg.DSN // of the linked database
	Name string  // the link's name, for the names of sessions
	Slot string  // the link's slot, made by the first Begin
	Log  *slog.Logger

	beginning sync.Mutex // held while a session is begun
	mu        sync.Mutex // guards session
	session   *Session
}

// Begin implements Remote. The first session makes the slot; without a slot a
// later one fails with slot_lost.
func (s *Source) Begin(ctx context.Context, r BeginRequest) (Begun, error) {
	s.beginning.Lock()
	defer s.beginning.Unlock()
	if live := s.live(); live != nil {
		if live.Token != r.Not {
			return live.Begun, nil
		}
		s.release(live)
	}
	have, err := s.slotExists(ctx)
	if err != nil {
		return Begun{}, err
	}
	var session *Session
	switch {
	case have:
		session, err = Temporary(ctx, s.DSN, s.Name)
	case r.Again:
		return Begun{}, problem.New(problem.Diverged, "slot_lost", "the replication slot is gone from the primary, and with it the changes since the first rows were copied").
			On(s.Slot).WithHint("delete the link and create it again; twinspan copies the database anew")
	default:
		session, err = CreateSlot(ctx, s.DSN, s.Name, s.Slot)
	}
	if err != nil {
		return Begun{}, err
	}
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
	s.Log.Info("seeding session begun", "link", s.Name, "lsn", session.LSN.String(), "slot_made", !have)
	return session.Begun, nil
}

func (s *Source) slotExists(ctx context.Context) (have bool, err error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Name + "/plan"})
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1)`, s.Slot).Scan(&have)
	return have, pg.Classify(err, "look for the replication slot")
}

// live returns the session unless there is none or its snapshot is lost.
func (s *Source) live() *Session {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session == nil {
		return nil
	}
	select {
	case <-session.Done():
		s.Log.Warn("seeding session lost", "link", s.Name, "lsn", session.LSN.String())
		s.release(session)
		return nil
	default:
		return session
	}
}

func (s *Source) release(session *Session) {
	s.mu.Lock()
	if s.session == session {
		s.session = nil
	}
	s.mu.Unlock()
	session.Close()
}

// Session returns the live session with the token, for what else has to be read
// at its snapshot. It belongs to the Source.
func (s *Source) Session(token string) (*Session, error) {
	if live := s.live(); live != nil && live.Token == token {
		return live, nil
	}
	return nil, sessionLost()
}

// Tables implements Remote.
func (s *Source) Tables(ctx context.Context, token string) ([]Table, error) {
	session, err := s.Session(token)
	if err != nil {
		return nil, err
	}
	return session.Plan(ctx)
}

// Copy implements Remote.
func (s *Source) Copy(ctx context.Context, token string, r CopyRequest, w io.Writer) (int64, error) {
	session, err := s.Session(token)
	if err != nil {
		return 0, err
	}
	if err := s.planned(ctx, session); err != nil {
		return 0, err
	}
	return session.Copy(ctx, r, w)
}

// planned makes sure that the session knows its tables: a secondary that comes
// back to a session need not ask for them again.
func (s *Source) planned(ctx context.Context, session *Session) error {
	session.mu.Lock()
	known := session.plan != nil
	session.mu.Unlock()
	if known {
		return nil
	}
	_, err := session.Plan(ctx)
	return err
}

// End implements Remote.
func (s *Source) End(_ context.Context, token string) error {
	if live := s.live(); live != nil && live.Token == token {
		s.release(live)
		s.Log.Info("seeding session ended", "link", s.Name)
	}
	return nil
}

// Close releases what is held.
func (s *Source) Close() {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session != nil {
		s.release(session)
	}
}
