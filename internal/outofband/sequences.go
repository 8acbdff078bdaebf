// Package outofband carries what does not come with the stream of a link, for it is not in the
// primary's log, or not in a form that is decoded: sequences (docs/design/0010-sequences.md) and
// large objects (docs/design/0011-large-objects.md). The secondary asks for them time and again,
// and exactly once more before it becomes the primary or the link is removed.
//
// Looks at sequences, settings of sequences and passes over large objects are made one at a
// time, each kind under a lock that is held during I/O and taken before the session. The state of
// large objects has a lock of its own, which is not.
package outofband

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
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// The methods by which the secondary asks the primary about sequences
// (docs/design/0010-sequences.md), the first about once a second.
const (
	MethodPromises  = "link.sequences" // where must my sequences stand?
	MethodSequences = "seed.sequences" // what are their values now?
)

// PromisesRequest asks for what changed since an answer, or for all.
type PromisesRequest struct {
	side.Reference
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

// Sequences keeps the sequences of a twin ahead of what the primary's have handed out: the
// secondary asks, the primary answers.
type Sequences struct {
	side    *side.Side
	service *side.Service
	applied func() lsn.LSN // up to where the primary's log is applied here, as far as known
	lookout lookout        // the primary's
	keeper  keeper         // the secondary's
}

// NewSequences returns what keeps a side's sequences. applied says up to where the primary's log is
// applied here, as far as known.
func NewSequences(s *side.Side, service *side.Service, applied func() lsn.LSN) *Sequences {
	return &Sequences{side: s, service: service, applied: applied}
}

// Forget drops what was known as long as the side's role was another.
func (q *Sequences) Forget() {
	q.lookout.mu.Lock()
	q.lookout.watch, q.lookout.token = nil, ""
	q.lookout.mu.Unlock()
	q.keeper.mu.Lock()
	defer q.keeper.mu.Unlock()
	q.keeper.token, q.keeper.promised, q.keeper.heard, q.keeper.released = "", nil, time.Time{}, false
}

// lookout is what a primary knows of its sequences while a secondary asks.
type lookout struct {
	mu      sync.Mutex // held while one look is made, before the session
	watch   *sequence.Watch
	reader  sequence.Reader
	token   string
	answers int
	end     lsn.LSN // of the log, before the last look
}

// HandlePromises looks at the primary's sequences. It is answered in every phase:
// a link that is broken needs its sequences ahead most.
func (q *Sequences) HandlePromises(ctx context.Context, request PromisesRequest, s *peer.Stream) error {
	if err := q.side.SameEpoch(request.Reference); err != nil {
		return err
	}
	promises, err := q.look(ctx, request.Token)
	if err != nil {
		return err
	}
	return flow.Reply(s, promises)
}

func (q *Sequences) look(ctx context.Context, token string) (Promises, error) {
	o := &q.lookout
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
	err := q.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		end, err := meet.EndOfLog(ctx, conn)
		if err != nil {
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
		answer.Position, err = meet.EndOfLog(ctx, conn)
		return err
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

// HandleValues sends the values of all sequences.
func (q *Sequences) HandleValues(ctx context.Context, request side.SessionReference, s *peer.Stream) error {
	return q.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		conn, err := q.side.DSN.Connect(ctx, pg.Session{Name: q.side.Name() + "/sequences"})
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		return new(sequence.Reader).Read(ctx, conn, true)
	})
}

func (o *lookout) name() string { return fmt.Sprintf("%s/%d", o.token, o.answers) }

// keeper holds a secondary's sequences where they have to stand.
type keeper struct {
	mu       sync.Mutex // held while sequences are asked for and set, before the session
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

// Run keeps the twin's sequences ahead for as long as the link exists.
func (q *Sequences) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := lookPause
		if r := q.side.Record(); side.Follows(r) {
			next, err := q.Follow(ctx, r)
			q.note(err)
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

// note makes a problem of promises that nobody renewed for long.
func (q *Sequences) note(err error) {
	q.keeper.mu.Lock()
	heard := q.keeper.heard
	q.keeper.mu.Unlock()
	if err == nil {
		q.side.Warn("sequences_behind", nil)
		return
	}
	q.side.Log.Debug("sequences not followed", "err", err)
	if heard.IsZero() || time.Since(heard) < unheardSequences || problem.CodeOf(err) == "peer_unreachable" {
		return
	}
	q.side.Warn("sequences_behind", problem.Wrap(err, problem.Transient, "sequences_behind", "the sequences of the twin are kept ahead of the primary's as of %s",
		heard.UTC().Format(time.DateTime)).WithHint("see what keeps the primary's agent from reading its sequences; it is tried again by itself"))
}

// Follow asks the primary once and sets what has to be set. It returns
// when to ask again.
func (q *Sequences) Follow(ctx context.Context, r catalog.Link) (time.Duration, error) {
	k := &q.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.released {
		return lookPause, nil
	}
	answer, err := side.Ask[Promises](ctx, q.side, MethodPromises, PromisesRequest{Reference: side.ReferenceOf(r), Token: k.token})
	if err != nil {
		return 0, err
	}
	if answer.Whole || k.promised == nil {
		k.promised = map[sqlname.Table]promised{}
	}
	for _, p := range answer.Changed {
		k.promised[p.Name] = promised{p, answer.Position}
	}
	applied := q.applied()
	err = q.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return k.keep(ctx, conn, applied, 0) })
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
	_, err = sequence.Set(ctx, conn, apart(k.promised, twin, applied, unheard))
	return err
}

// apart lists the twin's sequences that are not as promised, as they have to be.
func apart(all map[sqlname.Table]promised, twin []sequence.Sequence, applied lsn.LSN, unheard time.Duration) (list []sequence.Sequence) {
	for _, s := range twin {
		p, known := all[s.Name]
		if !known {
			continue
		}
		state := p.Extend(unheard)
		if _, ahead := p.Calls(s.State, state); s.State != state && (ahead || applied >= p.at && unheard == 0) {
			s.State = state
			list = append(list, s)
		}
	}
	return list
}

// Advance makes the twin's sequences ready to hand out values without the
// primary: none that the primary is known, or by its rate likely, to have handed
// out, and none that a row of the twin holds already in a column that the
// sequence feeds. It is for a forced failover, and for the removal of a link whose
// primary is gone.
func (q *Sequences) Advance(ctx context.Context) error {
	k := &q.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	conn, err := q.side.DSN.Connect(ctx, pg.Session{Name: q.side.Name() + "/sequences", Apply: true})
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
	q.side.Log.Info("sequences advanced", "sequences", len(twin), "behind_columns", len(behind))
	return nil
}

// Leave leaves the twin's sequences as they are from now on, and returns that.
func (q *Sequences) Leave(ctx context.Context) (map[sqlname.Table]sequence.State, error) {
	k := &q.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released = true
	var twin []sequence.Sequence
	err := q.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
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

// Bring gives the twin's sequences exactly the values that the primary's have now, and
// proves it by reading them again. Those that the twin does not have are returned. From
// then on the link leaves the sequences alone, until Release gives them back. For a planned
// failover nothing may write on the primary any more, and nothing may be missing.
//
// Where before says how the twin's sequences stood when sessions began to be let in, one from
// which somebody has drawn since stays where it is, ahead of the primary's: otherwise it would
// hand those numbers out again.
func (q *Sequences) Bring(ctx context.Context, before map[sqlname.Table]sequence.State) (missing []sqlname.Table, err error) {
	k := &q.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	asked := side.SessionReference{Reference: q.side.Reference()}
	want, err := side.Ask[[]sequence.Sequence](ctx, q.side, MethodSequences, asked)
	if err != nil {
		return nil, err
	}
	conn, err := q.side.DSN.Connect(ctx, pg.Session{Name: q.side.Name() + "/sequences", Apply: true})
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

// Release lets the link keep the sequences ahead again, after a failover
// or a removal that did not come about.
func (q *Sequences) Release() {
	q.keeper.mu.Lock()
	defer q.keeper.mu.Unlock()
	q.keeper.released, q.keeper.token = false, ""
}

// Last brings the sequences before a removal, and says in words how that went.
func (q *Sequences) Last(ctx context.Context) string {
	missing, err := q.Bring(ctx, nil)
	switch {
	case err == nil && len(missing) == 0:
		return ", sequences included"
	case err == nil:
		return fmt.Sprintf(", sequences included but for %d that it does not have, first %s", len(missing), missing[0])
	}
	q.side.Log.Warn("primary does not tell its sequences", "err", err)
	if err := q.Advance(ctx); err != nil {
		q.side.Log.Warn("sequences stay as they were", "err", err)
		return "; its sequences are ahead of the primary's as last seen, for the primary did not answer"
	}
	return "; its sequences are ahead of what the primary is known to have handed out, for it did not answer"
}
