package link

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// update stores a changed record, then makes it known. f edits a copy; an error
// of it leaves everything as it was.
func (l *Link) update(ctx context.Context, f func(r *catalog.Link) error) error {
	return l.write(ctx, f, func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error {
		if next.Phase == before.Phase && next.Seeded == before.Seeded && next.Suspended == before.Suspended && next.Diverged == before.Diverged &&
			next.Operation == before.Operation && next.Change == before.Change && next.Problem == before.Problem {
			return nil
		}
		return catalog.Store(ctx, conn, next)
	})
}

// happen takes an event: the new state is stored before anything acts on it.
func (l *Link) happen(ctx context.Context, e role.Event, trouble *problem.Error) error {
	return l.update(ctx, func(r *catalog.Link) error {
		next, err := role.Step(state(*r), e)
		if err != nil {
			return err
		}
		put(next, r)
		r.Problem = trouble
		return nil
	})
}

// turn stores a change of role or epoch, with what else, if anything, belongs to the
// same commit. It commits durably here, whoever else is to have it.
func (l *Link) turn(ctx context.Context, f func(r *catalog.Link) error, also func(ctx context.Context, tx pgx.Tx) error) error {
	return l.write(ctx, f, func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error {
		return storeTurn(ctx, conn, before, next, also)
	})
}

func storeTurn(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link, also func(ctx context.Context, tx pgx.Tx) error) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if also != nil {
			if err := also(ctx, tx); err != nil {
				return err
			}
		}
		return catalog.Turn(ctx, tx, before, next)
	})
}

// write changes the record: f edits a copy, store stores it. Only one change is
// made at a time. When nobody knows whether it was stored, the record is read
// again before anything else is done.
func (l *Link) write(ctx context.Context, f func(r *catalog.Link) error, store func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error) error {
	return l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := l.reload(ctx, conn); err != nil {
			return err
		}
		next := l.snapshot()
		before := next
		if err := f(&next); err != nil {
			return err
		}
		if err := store(ctx, conn, &before, &next); err != nil {
			if mayBeStored(err) {
				l.mu.Lock()
				l.unsure = true
				l.mu.Unlock()
			}
			return err
		}
		l.known(next)
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
func (l *Link) reload(ctx context.Context, conn *pgx.Conn) error {
	l.mu.Lock()
	unsure, id := l.unsure, l.record.ID
	l.mu.Unlock()
	if !unsure {
		return nil
	}
	stored, err := catalog.Get(ctx, conn, id)
	if err != nil {
		return err
	}
	l.known(*stored)
	return nil
}

// ascertain makes sure that the record is what is stored.
func (l *Link) ascertain(ctx context.Context) error { return l.control.do(ctx, l.reload) }

// NoteContact keeps in the database how the peer is known.
func (l *Link) NoteContact(ctx context.Context, c catalog.Contact) error {
	if l.snapshot().Deleting {
		return nil
	}
	return l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return catalog.SetContact(ctx, conn, l.ID(), c) })
}

// known makes a stored record known. What is stored by itself (the stream's
// beginning, notices) is newer in memory.
func (l *Link) known(next catalog.Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.record
	if l.unsure || next.Role != before.Role || next.Epoch != before.Epoch {
		l.record.StartLSN, l.record.SystemID, l.record.PrimaryAddress = next.StartLSN, next.SystemID, next.PrimaryAddress
	}
	l.unsure = false
	l.record.Role, l.record.Phase, l.record.Epoch, l.record.Seeded = next.Role, next.Phase, next.Epoch, next.Seeded
	l.record.Suspended, l.record.Change, l.record.Problem = next.Suspended, next.Change, next.Problem
	l.record.Diverged, l.record.Operation, l.record.Parted, l.record.LastFailover = next.Diverged, next.Operation, next.Parted, next.LastFailover
	if before.Role != next.Role {
		l.live, l.secondary.durable = live{}, 0 // all of another log
	}
	if before.Phase != next.Phase || before.Role != next.Role {
		l.phased, l.doing = time.Now(), doing{}
	}
	l.announceLocked()
	if before.Phase != next.Phase || before.Role != next.Role || before.Epoch != next.Epoch {
		l.log.Info("phase changed", "from", before.Phase, "to", next.Phase, "role", next.Role, "epoch", next.Epoch)
		if l.place.Turned != nil {
			l.place.Turned(l.database, before, next)
		}
	}
}

// announceLocked wakes whoever watches the record, or what the link does because of
// it.
func (l *Link) announceLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// forget drops what was known as long as the role was another. Nothing works on it.
func (l *Link) forget() {
	b := &l.beside
	b.lookout.mu.Lock()
	b.lookout.watch, b.lookout.token = nil, ""
	b.lookout.mu.Unlock()
	b.keeper.mu.Lock()
	b.keeper.token, b.keeper.promised, b.keeper.heard, b.keeper.released = "", nil, time.Time{}, false
	b.keeper.mu.Unlock()
	l.roles.mu.Lock()
	l.roles.there, l.roles.creates, l.roles.ordinary = nil, nil, nil
	l.roles.mu.Unlock()
	l.schema.mu.Lock()
	l.schema.loaded = false
	l.schema.mu.Unlock()
	l.audit.forget()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.schema.changes = ""
	b.collector.known, b.troubles = false, nil
	l.live, l.secondary.durable, l.trouble = live{}, 0, nil
}
