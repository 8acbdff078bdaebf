// Package auditor compares a twin with its primary in the background, at the secondary: pass
// by pass, at one position after the other, at a rate that hurts nobody. What it found and how
// far it is lies in the database: docs/design/0026-audit.md. What is compared next and how fast
// is package audit's to say.
package auditor

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/audit"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

const (
	// tick is how often the audit looks whether it may and has to work.
	tick = time.Second
	// restTime is how long it rests after something was in its way, and watchTime how
	// often it looks, while it works, whether something is.
	restTime  = 15 * time.Second
	watchTime = 250 * time.Millisecond
	// mostRows is how many rows of a table the audit tells of.
	mostRows = 100
	// Off is the rate, among settings, of an audit that is switched off: 0 is a side
	// that does not say, as agents of before.
	Off = -1
)

// Twin is what the audit needs of the link whose twin it compares.
type Twin struct {
	// Busy says why the link has other things to do than being audited; nothing where it has not.
	Busy func() string
	// Bring brings what the twin lacks of large objects.
	Bring func(ctx context.Context, force bool) (largeobject.Result, error)
	// Counts returns what says whether a difference of the schemas is one.
	Counts func(ctx context.Context) (func(verify.SchemaDifference) bool, error)
}

// Auditor is the audit of a link. The secondary does it; of the primary's only the rate counts.
type Auditor struct {
	side  *side.Side
	meets *meet.Secondary
	twin  Twin
	rate  atomic.Int64 // as among settings; 0 while what is stored was not read
	anew  atomic.Bool  // what differs is to be looked at again

	mu      sync.Mutex // guards what follows; before the side's own
	loaded  bool
	stored  catalog.Audit
	items   []item
	why     string    // what is in the way
	settled time.Time // since when the link has replicated
	pause   time.Duration
	speed   int64 // bytes a second that a sitting has read in fact; 0 while that is not known
	urgent  bool  // somebody wants a pass at once
	again   bool  // and wanted it when one was under way
}

// item is an item with what of it differs: as was found, and as the comparison under
// way has found so far.
type item struct {
	audit.Item
	differs, fresh []api.Difference
	more           bool
	before         time.Time // Compared, when the sitting came to it
}

// New returns the audit of a side.
func New(s *side.Side, meets *meet.Secondary, twin Twin) *Auditor {
	return &Auditor{side: s, meets: meets, twin: twin}
}

// Setting is the rate in force among settings; 0 while it is not known.
func (a *Auditor) Setting() int64 { return a.rate.Load() }

// Again has what differs looked at again: somebody has repaired it.
func (a *Auditor) Again() { a.anew.Store(true) }

// BytesPerSecond is the rate in force.
func (a *Auditor) BytesPerSecond() int64 {
	switch rate := a.rate.Load(); rate {
	case 0:
		return audit.DefaultRate
	case Off:
		return 0
	default:
		return rate
	}
}

// Run compares the twin with its primary in the background until ctx ends, which is for as
// long as this side is the secondary.
func (a *Auditor) Run(ctx context.Context) {
	var rest time.Time // until when
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(tick + rand.N(tick/10)):
		}
		why := a.obstacle()
		a.stand(why, time.Now())
		if why != "" || time.Now().Before(rest) {
			continue
		}
		if err := a.once(ctx); err != nil && ctx.Err() == nil {
			a.side.Log.Debug("the audit rests", "err", err)
			a.stand(problem.As(err).Text, time.Now())
			rest = time.Now().Add(a.breather())
		}
	}
}

// breather is for how long the audit rests after something was in its way: less where
// somebody waits for it.
func (a *Auditor) breather() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.urgent {
		return 2 * tick
	}
	return restTime
}

// stand notes what is in the way, and since when the link has replicated.
func (a *Auditor) stand(why string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why = why
	switch {
	case why == "" && a.settled.IsZero():
		a.settled = now
	case why == notReplicating:
		a.settled = time.Time{}
	}
}

const notReplicating = "the link does not replicate"

// obstacle says why nothing is to be compared now; nothing where it may.
func (a *Auditor) obstacle() string {
	r := a.side.Record()
	switch {
	case !side.Follows(r) || role.Phase(r.Phase) != role.Replicating:
		return notReplicating
	case a.BytesPerSecond() == 0:
		return "its rate is 0"
	}
	return a.twin.Busy()
}

// once does what is due, if anything is: at most what one position allows.
func (a *Auditor) once(ctx context.Context) error {
	if err := a.load(ctx); err != nil {
		return err
	}
	if a.anew.Swap(false) {
		a.reset()
	}
	due, err := a.due(ctx)
	if err == nil && due {
		err = a.sit(ctx)
	}
	a.note(time.Now())
	return err
}

// load reads how the audit stands, unless that was done.
func (a *Auditor) load(ctx context.Context) error {
	a.mu.Lock()
	loaded := a.loaded
	a.mu.Unlock()
	if loaded {
		return nil
	}
	r := a.side.Record()
	return a.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		stored, list, err := catalog.LoadAudit(ctx, conn, r.ID, r.Epoch)
		if err != nil {
			return err
		}
		items := make([]item, 0, len(list))
		for i := range list {
			item, err := readItem(&list[i])
			if err != nil {
				return err
			}
			items = append(items, item)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.loaded, a.stored, a.items = true, stored, items
		return nil
	})
}

// id tells items apart.
func (i *item) id() [2]string { return [2]string{string(i.Kind), i.Name} }

func readItem(s *catalog.AuditItem) (item, error) {
	i := item{Item: audit.Item{
		Kind: audit.Kind(s.Kind), Name: s.Name, Bytes: s.Bytes, Divided: s.Divided, Skipped: s.Skipped, Compared: s.Compared, Equal: s.Equal,
		Position: s.Position, Upto: s.Upto, Begun: s.Begun, Start: s.Start, Odd: s.Odd,
	}, more: s.More}
	if err := json.Unmarshal(s.Differs, &i.differs); err != nil {
		return i, problem.Wrap(err, problem.Internal, "audit_unreadable", "read what differs of %s", i.Name)
	}
	if i.Odd { // of the comparison that is gone on with
		i.fresh = i.differs
	}
	return i, nil
}

func (i *item) stored() (catalog.AuditItem, error) {
	differs, err := json.Marshal(append([]api.Difference{}, i.differs...))
	return catalog.AuditItem{
		Kind: string(i.Kind), Name: i.Name, Bytes: i.Bytes, Divided: i.Divided, Skipped: i.Skipped, Compared: i.Compared, Equal: i.Equal,
		Position: i.Position, Upto: i.Upto, Begun: i.Begun, Start: i.Start, Odd: i.Odd, Differs: differs, More: i.more,
	}, err
}

// running says whether a pass is under way.
func (a *Auditor) running() bool { return a.stored.Began.After(a.stored.Ended) }

// due says whether to work now, and begins a pass when that is due.
func (a *Auditor) due(ctx context.Context) (bool, error) {
	now := time.Now().UTC()
	a.mu.Lock()
	settled := a.urgent || now.Sub(a.settled) >= audit.Settled
	rested := a.urgent || now.Sub(a.stored.Began) >= audit.Every
	running, ended := a.running(), a.stored.Ended
	a.mu.Unlock()
	if running || !settled || !rested {
		return running && settled, nil
	}
	err := a.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.StorePass(ctx, conn, a.side.ID(), now, ended)
	})
	if err == nil {
		a.mu.Lock()
		a.stored.Began = now
		a.mu.Unlock()
		a.side.Log.Info("audit pass begins")
	}
	return err == nil, err
}

// want has a pass begin now: behind the one under way, which has seen a part of everything.
func (a *Auditor) want() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.again = a.urgent || a.loaded && a.running()
	a.urgent = true
}

// note makes problems of what differs, and of what was not compared for long.
func (a *Auditor) note(now time.Time) {
	a.mu.Lock()
	var differ []string
	var plain []audit.Item
	count, more := 0, ""
	for i := range a.items {
		it := &a.items[i]
		plain = append(plain, it.Item)
		if len(it.differs) > 0 {
			count += len(it.differs)
			differ = append(differ, it.title())
			if it.more {
				more = " at least"
			}
		}
	}
	since, pace := a.stored.Since, a.paceLocked()
	a.mu.Unlock()
	var different, late *problem.Error
	name := a.side.Name()
	if len(differ) > 0 {
		different = problem.New(problem.Diverged, "audit_difference", "the twin differs from its primary in %d places%s: %s", count, more, problem.Names(differ)).On(differ[0]).
			WithHint("twinspan link audit %s names the keys; link verify %s --repair brings rows, indexes, constraints and sequences in line", name, name)
	}
	if old := audit.Late(plain, since, now); len(old) > 0 && a.BytesPerSecond() > 0 {
		names := make([]string, len(old))
		for i := range old {
			names[i] = old[i].Name
		}
		late = problem.New(problem.Transient, "audit_overdue", "%d tables were not compared for %d days: %s", len(old), int(audit.Overdue/(24*time.Hour)), problem.Names(names)).On(names[0]).
			WithHint("a pass takes %s; give it a higher rate: twinspan link set %s --audit-rate, and see in link audit %s what is in the way", audit.Length(plain, pace).Round(time.Minute), name, name)
	}
	a.side.Warn("audit_difference", different)
	a.side.Warn("audit_overdue", late)
}

// title is how an item is called in a sentence.
func (i *item) title() string {
	if i.Name == "" {
		return string(i.Kind)
	}
	return i.Name
}

// reset has what differs compared first, in a pass that begins at once: somebody has
// repaired it.
func (a *Auditor) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.items {
		if it := &a.items[i]; len(it.differs) > 0 {
			// When it was compared last stays known: it is not late for being looked at again.
			it.Again, it.Upto, it.fresh, it.Odd = true, nil, nil, false
			a.urgent = true
		}
	}
}

// Forget drops what was known as long as the role was another.
func (a *Auditor) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded, a.stored, a.items, a.settled, a.pause, a.urgent, a.again = false, catalog.Audit{}, nil, time.Time{}, 0, false, false
}

// View is what the secondary shows of the audit.
func (a *Auditor) View() *api.Audit {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.viewLocked()
	return &v
}

func (a *Auditor) viewLocked() api.Audit {
	rate := a.BytesPerSecond()
	v := api.Audit{State: api.AuditWaiting, RateBytesPerSecond: rate, BeganAt: shownTime(a.stored.Began), EndedAt: shownTime(a.stored.Ended)}
	switch {
	case rate == 0:
		v.State = api.AuditOff
	case a.why != "":
		v.State, v.Why = api.AuditResting, a.why
	case a.running():
		v.State = api.AuditRunning
	}
	var plain []audit.Item
	oldest, all := time.Time{}, true
	for i := range a.items {
		it := &a.items[i]
		if it.Skipped != "" {
			v.LeftOut++
			continue
		}
		v.Items++
		plain = append(plain, it.Item)
		if !it.Again && !it.Compared.Before(a.stored.Began) && !a.stored.Began.IsZero() {
			v.Done++
		}
		if len(it.differs) > 0 {
			v.Differing++
			v.Differences += len(it.differs)
		}
		all = all && !it.Equal.IsZero()
		if oldest.IsZero() || it.Equal.Before(oldest) {
			oldest = it.Equal
		}
	}
	if len(plain) > 0 && rate > 0 {
		seconds := audit.Length(plain, a.paceLocked()).Seconds()
		v.PassSeconds = &seconds
	}
	if all {
		v.EqualSince = shownTime(oldest)
	}
	if a.pause > 0 {
		seconds := a.pause.Seconds()
		v.PauseSeconds = &seconds
	}
	return v
}

// paceLocked is how fast it reads, as far as that is known.
func (a *Auditor) paceLocked() int64 {
	rate := a.BytesPerSecond()
	if a.speed > 0 {
		return min(rate, a.speed)
	}
	return rate
}

// shownTime is how a time is shown: nil for none.
func shownTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
