package link

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// MethodPromises is asked by the secondary of the primary, about once a second:
// where must my sequences stand (docs/design/0010-sequences.md)?
const MethodPromises = "link.sequences"

// PromisesRequest asks for what changed since an answer, or for all.
type PromisesRequest struct {
	Reference
	Token string `json:"token"` // of the last answer; another one than the primary knows asks for all
}

// Promises answers it.
type Promises struct {
	Token    string             `json:"token"`
	Whole    bool               `json:"whole"`    // Changed is all there is
	Position lsn.LSN            `json:"position"` // a twin that has applied this knows these names
	Changed  []sequence.Promise `json:"changed"`
	Pause    time.Duration      `json:"pause"` // until the next look
}

const (
	// lookPause is how often sequences are looked at; hurriedPause, while one of them
	// uses up its lead quickly.
	lookPause    = time.Second
	hurriedPause = 250 * time.Millisecond
	// lookEach is how much longer for each sequence: ten thousand are looked at less
	// often than a hundred, so that looks take a small part of the time. It is not
	// measured: a look that is slow because the server is busy is needed most.
	lookEach = time.Millisecond / 2
	// unheardSequences is how long promises may be old before it is a problem.
	unheardSequences = 30 * time.Second
)

// lookout is what a primary knows of its sequences while a secondary asks.
type lookout struct {
	mu      sync.Mutex
	watch   *sequence.Watch
	reader  sequence.Reader
	token   string
	answers int
	end     lsn.LSN // of the log, before the last look
}

// HandlePromises looks at the primary's sequences. It is answered in every phase:
// a link that is broken needs its sequences ahead most.
func (l *Link) HandlePromises(ctx context.Context, request PromisesRequest, s *peer.Stream) error {
	if err := l.sameEpoch(request.Reference); err != nil {
		return err
	}
	promises, err := l.lookAtSequences(ctx, request.Token)
	if err != nil {
		return err
	}
	return flow.Reply(s, promises)
}

func (l *Link) lookAtSequences(ctx context.Context, token string) (Promises, error) {
	o := &l.beside.lookout
	o.mu.Lock()
	defer o.mu.Unlock()
	var answer Promises
	known := o.watch != nil && token == o.name()
	if !known {
		var fresh [8]byte
		rand.Read(fresh[:])
		o.watch, o.token, o.answers, o.end = sequence.NewWatch(), hex.EncodeToString(fresh[:]), 0, 0
	}
	answer.Whole, answer.Pause = !known, lookPause
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var end lsn.LSN
		if err := endOfLog(ctx, conn, &end); err != nil {
			return err
		}
		if end == o.end && o.watch.Idle() {
			return nil
		}
		list, err := o.reader.Read(ctx, conn, false)
		if err != nil {
			return err
		}
		var hurried bool
		answer.Changed, hurried = o.watch.Observe(time.Now(), list)
		if hurried {
			answer.Pause = hurriedPause
		}
		answer.Pause += time.Duration(len(list)) * lookEach
		o.end = end
		return endOfLog(ctx, conn, &answer.Position)
	})
	if err != nil {
		return Promises{}, err
	}
	if len(answer.Changed) > 0 {
		o.answers++
	}
	answer.Token = o.name()
	return answer, nil
}

func (o *lookout) name() string { return fmt.Sprintf("%s/%d", o.token, o.answers) }

func endOfLog(ctx context.Context, conn *pgx.Conn, end *lsn.LSN) error {
	err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(end)
	return pg.Classify(err, "read the end of the log")
}

// keeper holds a secondary's sequences where they have to stand.
type keeper struct {
	mu       sync.Mutex
	token    string
	promised map[sqlname.Table]promised
	reader   sequence.Reader
	heard    time.Time
	released bool // the sequences have got their last values from here
}

// promised is a promise and the position at which its name means that sequence.
type promised struct {
	sequence.Promise
	at lsn.LSN
}

// sequenceLoop keeps the twin's sequences ahead for as long as the link exists.
func (l *Link) sequenceLoop(ctx context.Context) {
	for ctx.Err() == nil {
		pause := lookPause
		if r := l.snapshot(); follows(r) {
			next, err := l.followSequences(ctx, r)
			l.noteSequences(err)
			pause = max(pause, next)
			if err == nil {
				pause = next
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// follows says whether the secondary has a whole copy that it keeps in step. A
// link that is broken counts: what is carried beside the stream goes on.
func follows(r catalog.Link) bool {
	return role.Role(r.Role) == role.Secondary && r.Seeded && !r.Suspended && !r.Deleting
}

// noteSequences makes a problem of promises that nobody renewed for long.
func (l *Link) noteSequences(err error) {
	l.beside.keeper.mu.Lock()
	heard := l.beside.keeper.heard
	l.beside.keeper.mu.Unlock()
	if err == nil {
		l.setAside("sequences_behind", nil)
		return
	}
	l.log.Debug("sequences not followed", "err", err)
	if heard.IsZero() || time.Since(heard) < unheardSequences || problem.CodeOf(err) == "peer_unreachable" {
		return
	}
	l.setAside("sequences_behind", problem.Wrap(err, problem.Transient, "sequences_behind", "the sequences of the twin are kept ahead of the primary's as of %s",
		heard.UTC().Format(time.DateTime)).WithHint("see what keeps the primary's agent from reading its sequences; it is tried again by itself"))
}

// followSequences asks the primary once and sets what has to be set. It returns
// when to ask again.
func (l *Link) followSequences(ctx context.Context, r catalog.Link) (time.Duration, error) {
	k := &l.beside.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.released {
		return lookPause, nil
	}
	answer, err := ask[Promises](ctx, l, MethodPromises, PromisesRequest{Reference: Reference{ID: r.ID, Epoch: r.Epoch}, Token: k.token})
	if err != nil {
		return 0, err
	}
	if answer.Whole || k.promised == nil {
		k.promised = map[sqlname.Table]promised{}
	}
	for _, p := range answer.Changed {
		k.promised[p.Name] = promised{p, answer.Position}
	}
	applied := l.appliedPosition()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return k.keep(ctx, conn, applied, 0) })
	if err != nil {
		k.token = "" // what came was not taken: all of it again
		return 0, err
	}
	k.token, k.heard = answer.Token, time.Now()
	return answer.Pause, nil
}

// keep sets the sequences that are not as promised. Back goes one only when the
// twin's schema is as new as the promise: until then its name may mean another
// sequence, whose values have been handed out.
func (k *keeper) keep(ctx context.Context, conn *pgx.Conn, applied lsn.LSN, unheard time.Duration) error {
	twin, err := k.reader.Read(ctx, conn, unheard > 0)
	if err != nil {
		return err
	}
	var due []sequence.Sequence
	for _, s := range twin {
		p, known := k.promised[s.Name]
		if !known {
			continue
		}
		state := p.Extend(unheard)
		if _, ahead := p.Calls(s.State, state); s.State != state && (ahead || applied >= p.at && unheard == 0) {
			s.State = state
			due = append(due, s)
		}
	}
	_, err = sequence.Set(ctx, conn, due)
	return err
}

// appliedPosition is up to where the primary's log is applied, as far as known.
func (l *Link) appliedPosition() lsn.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	position := l.secondary.durable
	if l.secondary.applier != nil {
		position = max(position, l.secondary.applier.Status().Applied)
	}
	return position
}

// AdvanceSequences makes the twin's sequences ready to hand out values without the
// primary: none that the primary is known, or by its rate likely, to have handed
// out, and none that a row of the twin holds already in a column that the
// sequence feeds. It is for a forced failover, and for the removal of a link whose
// primary is gone.
func (l *Link) AdvanceSequences(ctx context.Context) error {
	k := &l.beside.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/sequences", Apply: true})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if !k.heard.IsZero() {
		if err := k.keep(ctx, conn, 0, time.Since(k.heard)); err != nil {
			return err
		}
	}
	twin, err := k.reader.Read(ctx, conn, true)
	if err != nil {
		return err
	}
	behind, err := sequence.BehindColumns(ctx, conn, twin)
	if err != nil {
		return err
	}
	if _, err := sequence.Set(ctx, conn, behind); err != nil {
		return err
	}
	k.released = true
	l.log.Info("sequences advanced", "sequences", len(twin), "behind_columns", len(behind))
	return nil
}

// BringSequences gives the twin's sequences exactly the values that the primary's
// have now, and proves it by reading them again. Those that the twin does not have
// are returned. From then on the link leaves the sequences alone, until
// ReleaseSequences gives them back. For a planned failover nothing may write on
// the primary any more, and nothing may be missing.
func (l *Link) BringSequences(ctx context.Context) (missing []sqlname.Table, err error) {
	return l.bringSequences(ctx, nil)
}

// keepSequences leaves the twin's sequences as they are from now on, and returns that.
func (l *Link) keepSequences(ctx context.Context) (map[sqlname.Table]sequence.State, error) {
	k := &l.beside.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released = true
	var twin []sequence.Sequence
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		twin, err = new(sequence.Reader).Read(ctx, conn, true)
		return err
	})
	return states(twin), err
}

func states(list []sequence.Sequence) map[sqlname.Table]sequence.State {
	m := make(map[sqlname.Table]sequence.State, len(list))
	for _, s := range list {
		m[s.Name] = s.State
	}
	return m
}

// bringSequences is BringSequences. Where before says how the twin's sequences stood
// when sessions began to be let in, one from which somebody has drawn since stays where
// it is, ahead of the primary's: otherwise it would hand those numbers out again.
func (l *Link) bringSequences(ctx context.Context, before map[sqlname.Table]sequence.State) (missing []sqlname.Table, err error) {
	k := &l.beside.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	want, err := (&remote{link: l}).sequences(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/sequences", Apply: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if want, err = undrawn(ctx, conn, want, before); err != nil {
		return nil, err
	}
	if missing, err = sequence.Set(ctx, conn, want); err != nil {
		return nil, err
	}
	twin, err := new(sequence.Reader).Read(ctx, conn, true)
	if err != nil {
		return nil, err
	}
	have := states(twin)
	for _, s := range want {
		if have[s.Name] != s.State && !slices.Contains(missing, s.Name) {
			return nil, problem.New(problem.Transient, "sequence_differs", "the sequence %s was set and has another value", s.Name).On(s.Name.String())
		}
	}
	k.released = true
	return missing, nil
}

// undrawn leaves out the sequences from which somebody has drawn on the twin.
func undrawn(ctx context.Context, conn *pgx.Conn, want []sequence.Sequence, before map[sqlname.Table]sequence.State) ([]sequence.Sequence, error) {
	if before == nil {
		return want, nil
	}
	now, err := new(sequence.Reader).Read(ctx, conn, true)
	if err != nil {
		return nil, err
	}
	drawn := states(now)
	return slices.DeleteFunc(want, func(s sequence.Sequence) bool {
		was, known := before[s.Name]
		is, there := drawn[s.Name]
		return known && there && is != was
	}), nil
}

// ReleaseSequences lets the link keep the sequences ahead again, after a failover
// or a removal that did not come about.
func (l *Link) ReleaseSequences() {
	l.beside.keeper.mu.Lock()
	defer l.beside.keeper.mu.Unlock()
	l.beside.keeper.released, l.beside.keeper.token = false, ""
}
