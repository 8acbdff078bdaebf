package side

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// Update stores a changed record, then makes it known. f edits a copy; an error
// of it leaves everything as it was.
func (s *Side) Update(ctx context.Context, f func(r *catalog.Link) error) error {
	return s.Write(ctx, f, func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error {
		if next.Phase == before.Phase && next.Seeded == before.Seeded && next.Suspended == before.Suspended && next.Diverged == before.Diverged &&
			next.Operation == before.Operation && next.Change == before.Change && next.Problem == before.Problem {
			return nil
		}
		return catalog.Store(ctx, conn, next)
	})
}

// Happen takes an event: the new state is stored before anything acts on it.
func (s *Side) Happen(ctx context.Context, e role.Event, trouble *problem.Error) error {
	return s.Update(ctx, func(r *catalog.Link) error {
		next, err := role.Step(State(*r), e)
		if err != nil {
			return err
		}
		Put(next, r)
		r.Problem = trouble
		return nil
	})
}

// Turn stores a change of role or epoch, with what else, if anything, belongs to the
// same commit. It commits durably here, whoever else is to have it.
func (s *Side) Turn(ctx context.Context, f func(r *catalog.Link) error, also func(ctx context.Context, tx pgx.Tx) error) error {
	return s.Write(ctx, f, func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error {
		return StoreTurn(ctx, conn, before, next, also)
	})
}

// StoreTurn is how Turn stores.
func StoreTurn(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link, also func(ctx context.Context, tx pgx.Tx) error) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if also != nil {
			if err := also(ctx, tx); err != nil {
				return err
			}
		}
		return catalog.Turn(ctx, tx, before, next)
	})
}

// Write changes the record: f edits a copy, store stores it. Only one change is
// made at a time. When nobody knows whether it was stored, the record is read
// again before anything else is done.
func (s *Side) Write(ctx context.Context, f func(r *catalog.Link) error, store func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error) error {
	return s.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.reload(ctx, conn); err != nil {
			return err
		}
		next := s.Record()
		before := next
		if err := f(&next); err != nil {
			return err
		}
		if err := store(ctx, conn, &before, &next); err != nil {
			if mayBeStored(err) {
				s.mu.Lock()
				s.unsure = true
				s.mu.Unlock()
			}
			return err
		}
		s.known(next)
		return nil
	})
}

// Keep stores something of the record that is stored by itself, as the beginning of the
// stream and notices are: f stores it and edits a copy, which then is the record. An error of f
// leaves that as it was. Nobody who watches the record is woken.
func (s *Side) Keep(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error) error {
	return s.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		next := s.Record()
		if err := f(ctx, conn, &next); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.record = next
		return nil
	})
}

// mayBeStored says whether a transaction that ended like this may be committed: the
// server, or the way to it, was lost before it answered.
func mayBeStored(err error) bool {
	state := pg.SQLState(err)
	switch problem.KindOf(err) {
	case problem.Conflict, problem.NotFound, problem.Invalid:
		return false
	}
	return state == "" || strings.HasPrefix(state, "57") || strings.HasPrefix(state, "08") || strings.HasPrefix(state, "58")
}

// reload reads the record again when it may have changed.
func (s *Side) reload(ctx context.Context, conn *pgx.Conn) error {
	s.mu.Lock()
	unsure, id := s.unsure, s.record.ID
	s.mu.Unlock()
	if !unsure {
		return nil
	}
	stored, err := catalog.Get(ctx, conn, id)
	if err != nil {
		return err
	}
	s.known(*stored)
	return nil
}

// Ascertain makes sure that the record is what is stored.
func (s *Side) Ascertain(ctx context.Context) error { return s.Session.Do(ctx, s.reload) }

// Stored makes known what was stored through another session than the side's.
func (s *Side) Stored(next catalog.Link) {
	s.Session.mu.Lock()
	defer s.Session.mu.Unlock()
	s.known(next)
}

// known makes a stored record known. What is stored by itself (Keep) is newer in memory. The
// session is held.
func (s *Side) known(next catalog.Link) {
	s.mu.Lock()
	before := s.record
	if s.unsure || next.Role != before.Role || next.Epoch != before.Epoch {
		s.record.StartLSN, s.record.SystemID, s.record.PrimaryAddress = next.StartLSN, next.SystemID, next.PrimaryAddress
	}
	s.unsure = false
	s.record.Role, s.record.Phase, s.record.Epoch, s.record.Seeded = next.Role, next.Phase, next.Epoch, next.Seeded
	s.record.Suspended, s.record.Change, s.record.Problem = next.Suspended, next.Change, next.Problem
	s.record.Diverged, s.record.Operation, s.record.Parted, s.record.LastFailover = next.Diverged, next.Operation, next.Parted, next.LastFailover
	if before.Role != next.Role {
		s.suspect = false
	}
	if before.Phase != next.Phase || before.Role != next.Role {
		s.phased, s.doing = time.Now(), Doing{}
	}
	s.announceLocked()
	s.mu.Unlock()
	if before.Phase != next.Phase || before.Role != next.Role || before.Epoch != next.Epoch {
		s.Log.Info("phase changed", "from", before.Phase, "to", next.Phase, "role", next.Role, "epoch", next.Epoch)
		if s.Turned != nil {
			s.Turned(before, next)
		}
	}
}

// Note stores notices with the link's record.
func (s *Side) Note(ctx context.Context, notices []catalog.Notice) error {
	if len(notices) == 0 {
		return nil
	}
	return s.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		if err := catalog.AddNotices(ctx, conn, r, notices); err != nil {
			return err
		}
		r.Notices = slices.Concat(r.Notices, notices)
		return nil
	})
}
