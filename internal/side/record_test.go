package side

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// What a side remembers is what is stored: after a state, after what is stored by itself, after
// a refusal, and after a store of which nobody knows how it ended.
func TestRecordIsWhatIsStored(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, err := pg.ParseDSN(server.DSN(server.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	const id, agent = "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11", "1b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a12"
	s := New(dsn, dsn.Database(), nil, slog.New(slog.DiscardHandler), catalog.Link{ID: id, Name: `odd "name"`, Agent: agent, Peer: "b", PeerAgent: agent, PeerDatabase: "x",
		Role: string(role.Primary), Phase: string(role.Creating), Epoch: 1, Mode: "async"})
	t.Cleanup(s.Session.Close)
	stored := func() (r catalog.Link) {
		t.Helper()
		if err := s.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			l, err := catalog.Get(ctx, conn, id)
			if err == nil {
				r = *l
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	agrees := func(when string) {
		t.Helper()
		mine, there := s.Record(), stored()
		if State(mine) != State(there) || mine.StartLSN != there.StartLSN || mine.Timeline != there.Timeline || len(mine.Notices) != len(there.Notices) || (mine.Problem == nil) != (there.Problem == nil) {
			t.Errorf("%s: remembered is %+v, stored %+v", when, mine, there)
		}
	}
	err = s.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error { return errors.Join(catalog.Install(ctx, tx), catalog.Insert(ctx, tx, r)) })
	})
	if err != nil {
		t.Fatal(err)
	}
	agrees("inserted")

	var told []string
	s.Turned = func(before, after catalog.Link) { told = append(told, before.Phase+" "+after.Phase) }
	_, changed := s.Watch()
	if err := s.Happen(ctx, role.Prepared, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("who watches the record was not woken")
	}
	if s.Record().Phase != string(role.Seeding) || len(told) != 1 || told[0] != "creating seeding" {
		t.Errorf("phase %s, told %q", s.Record().Phase, told)
	}
	agrees("prepared")

	_, changed = s.Watch()
	if err := s.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		r.StartLSN = lsn.LSN(0x10)
		return catalog.SetStart(ctx, conn, r, r.StartLSN, "7")
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Note(ctx, []catalog.Notice{{Code: "x", Text: "y"}}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("what is stored by itself wakes who watches the record")
	default:
	}
	agrees("kept")

	no := errors.New("no")
	if err := s.Keep(ctx, func(_ context.Context, _ *pgx.Conn, r *catalog.Link) error { r.StartLSN = 0; return no }); err != no {
		t.Error(err)
	}
	if err := s.Happen(ctx, role.Prepared, nil); err == nil {
		t.Error("a primary that is prepared was prepared again")
	}
	agrees("refused")

	// It was committed, and the answer lost.
	lost := problem.New(problem.Transient, "server_lost", "the connection broke")
	err = s.Write(ctx, func(r *catalog.Link) error {
		r.Phase, r.Problem = string(role.Broken), lost
		return nil
	}, func(ctx context.Context, conn *pgx.Conn, _, next *catalog.Link) error {
		return errors.Join(catalog.Store(ctx, conn, next), lost)
	})
	if err == nil || s.Record().Phase != string(role.Seeding) {
		t.Errorf("%v, phase %s", err, s.Record().Phase)
	}
	if err := s.Ascertain(ctx); err != nil {
		t.Fatal(err)
	}
	if s.Record().Phase != string(role.Broken) {
		t.Errorf("phase %s is remembered", s.Record().Phase)
	}
	agrees("ascertained")
}
