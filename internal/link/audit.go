package link

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/audit"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

const (
	// auditTick is how often the audit looks whether it may and has to work.
	auditTick = time.Second
	// auditPause is how long it rests after something was in its way, and auditWatch how
	// often it looks, while it works, whether something is.
	auditPause = 15 * time.Second
	auditWatch = 250 * time.Millisecond
	// auditRows is how many rows of a table the audit tells of.
	auditRows = 100
	// auditOff is the rate, among settings, of an audit that is switched off: 0 is a side
	// that does not say, as agents of before.
	auditOff = -1
)

// auditor is how the audit of a link stands. The secondary has it; of the primary's only
// the rate is.
type auditor struct {
	rate atomic.Int64 // as among settings; 0 while what is stored was not read
	anew atomic.Bool  // what differs is to be looked at again

	mu      sync.Mutex // guards what follows
	loaded  bool
	stored  catalog.Audit
	items   []auditItem
	why     string    // what is in the way
	settled time.Time // since when the link has replicated
	pause   time.Duration
	speed   int64 // bytes a second that a sitting has read in fact; 0 while that is not known
	urgent  bool  // somebody wants a pass at once
	again   bool  // and wanted it when one was under way
}

// auditItem is an item with what of it differs: as was found, and as the comparison under
// way has found so far.
type auditItem struct {
	audit.Item
	differs, fresh []api.Difference
	more           bool
}

// bytesPerSecond is the rate in force.
func (a *auditor) bytesPerSecond() int64 {
	switch rate := a.rate.Load(); rate {
	case 0:
		return audit.DefaultRate
	case auditOff:
		return 0
	default:
		return rate
	}
}

// auditLoop compares the twin with its primary in the background for as long as this side
// is the secondary.
func (l *Link) auditLoop(ctx context.Context) {
	var rest time.Time // until when
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(auditTick + rand.N(auditTick/10)):
		}
		why := l.auditObstacle()
		l.audit.stand(why, time.Now())
		if why != "" || time.Now().Before(rest) {
			continue
		}
		if err := l.auditOnce(ctx); err != nil && ctx.Err() == nil {
			l.log.Debug("the audit rests", "err", err)
			l.audit.stand(problem.As(err).Text, time.Now())
			rest = time.Now().Add(l.audit.breather())
		}
	}
}

// breather is for how long the audit rests after something was in its way: less where
// somebody waits for it.
func (a *auditor) breather() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.urgent {
		return 2 * auditTick
	}
	return auditPause
}

// stand notes what is in the way, and since when the link has replicated.
func (a *auditor) stand(why string, now time.Time) {
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

// auditObstacle says why nothing is to be compared now; nothing where it may.
func (l *Link) auditObstacle() string {
	r := l.snapshot()
	switch {
	case !follows(r) || role.Phase(r.Phase) != role.Replicating:
		return notReplicating
	case l.audit.bytesPerSecond() == 0:
		return "its rate is 0"
	case l.verifications.running():
		return "a verification is under way"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.secondary.applier
	if a == nil {
		return "the stream of the link is interrupted"
	}
	if age, known := l.behindLocked(a.Status()); !known || age > inStep {
		return "the link is behind"
	}
	return ""
}

// auditOnce does what is due, if anything is: at most what one position allows.
func (l *Link) auditOnce(ctx context.Context) error {
	if err := l.loadAudit(ctx); err != nil {
		return err
	}
	if l.audit.anew.Swap(false) {
		l.audit.reset()
	}
	due, err := l.auditDue(ctx)
	if err == nil && due {
		err = l.auditSitting(ctx)
	}
	l.noteAudit(time.Now())
	return err
}

// loadAudit reads how the audit stands, unless that was done.
func (l *Link) loadAudit(ctx context.Context) error {
	a := &l.audit
	a.mu.Lock()
	loaded := a.loaded
	a.mu.Unlock()
	if loaded {
		return nil
	}
	r := l.snapshot()
	return l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		stored, list, err := catalog.LoadAudit(ctx, conn, r.ID, r.Epoch)
		if err != nil {
			return err
		}
		items := make([]auditItem, 0, len(list))
		for i := range list {
			item, err := readAuditItem(&list[i])
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
func (i *auditItem) id() [2]string { return [2]string{string(i.Kind), i.Name} }

func readAuditItem(s *catalog.AuditItem) (auditItem, error) {
	i := auditItem{Item: audit.Item{
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

func (i *auditItem) stored() (catalog.AuditItem, error) {
	differs, err := json.Marshal(append([]api.Difference{}, i.differs...))
	return catalog.AuditItem{
		Kind: string(i.Kind), Name: i.Name, Bytes: i.Bytes, Divided: i.Divided, Skipped: i.Skipped, Compared: i.Compared, Equal: i.Equal,
		Position: i.Position, Upto: i.Upto, Begun: i.Begun, Start: i.Start, Odd: i.Odd, Differs: differs, More: i.more,
	}, err
}

// running says whether a pass is under way.
func (a *auditor) running() bool { return a.stored.Began.After(a.stored.Ended) }

// auditDue says whether to work now, and begins a pass when that is due.
func (l *Link) auditDue(ctx context.Context) (bool, error) {
	a, now := &l.audit, time.Now().UTC()
	a.mu.Lock()
	settled := a.urgent || now.Sub(a.settled) >= audit.Settled
	rested := a.urgent || now.Sub(a.stored.Began) >= audit.Every
	running, ended := a.running(), a.stored.Ended
	a.mu.Unlock()
	if running || !settled || !rested {
		return running && settled, nil
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.StorePass(ctx, conn, l.ID(), now, ended)
	})
	if err == nil {
		a.mu.Lock()
		a.stored.Began = now
		a.mu.Unlock()
		l.log.Info("audit pass begins")
	}
	return err == nil, err
}

// ask has a pass begin now: behind the one under way, which has seen a part of everything.
func (a *auditor) ask() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.again = a.urgent || a.loaded && a.running()
	a.urgent = true
}

// noteAudit makes problems of what differs, and of what was not compared for long.
func (l *Link) noteAudit(now time.Time) {
	a := &l.audit
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
	name := l.Name()
	if len(differ) > 0 {
		different = problem.New(problem.Diverged, "audit_difference", "the twin differs from its primary in %d places%s: %s", count, more, listed(differ)).On(differ[0]).
			WithHint("twinspan link audit %s names the keys; link verify %s --repair brings rows, indexes, constraints and sequences in line", name, name)
	}
	if old := audit.Late(plain, since, now); len(old) > 0 && l.audit.bytesPerSecond() > 0 {
		names := make([]string, len(old))
		for i := range old {
			names[i] = old[i].Name
		}
		late = problem.New(problem.Transient, "audit_overdue", "%d tables were not compared for %d days: %s", len(old), int(audit.Overdue/(24*time.Hour)), listed(names)).On(names[0]).
			WithHint("a pass takes %s; give it a higher rate: twinspan link set %s --audit-rate, and see in link audit %s what is in the way", audit.Length(plain, pace).Round(time.Minute), name, name)
	}
	l.setAside("audit_difference", different)
	l.setAside("audit_overdue", late)
}

// title is how an item is called in a sentence.
func (i *auditItem) title() string {
	if i.Name == "" {
		return string(i.Kind)
	}
	return i.Name
}

// listed lists the first of some names.
func listed(names []string) string {
	text := ""
	for i, n := range names {
		if i == mostNamed {
			return text + fmt.Sprintf(" and %d more", len(names)-i)
		}
		if i > 0 {
			text += ", "
		}
		text += n
	}
	return text
}

// reset has what differs compared first, in a pass that begins at once: somebody has
// repaired it.
func (a *auditor) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.items {
		if it := &a.items[i]; len(it.differs) > 0 {
			it.Compared, it.Upto, it.fresh, it.Odd = time.Time{}, nil, nil, false
			a.urgent = true
		}
	}
}

// forget drops what was known as long as the role was another.
func (a *auditor) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded, a.stored, a.items, a.settled, a.pause, a.urgent, a.again = false, catalog.Audit{}, nil, time.Time{}, 0, false, false
}

// auditLocked is what link show says of the audit; nil while nothing is known. The
// secondary knows, and reports it.
func (l *Link) auditLocked() *api.Audit {
	if role.Role(l.record.Role) == role.Primary {
		return l.live.report.Audit
	}
	a := &l.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.viewLocked()
	return &v
}

func (a *auditor) viewLocked() api.Audit {
	rate := a.bytesPerSecond()
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
		if !it.Compared.Before(a.stored.Began) && !a.stored.Began.IsZero() {
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
func (a *auditor) paceLocked() int64 {
	rate := a.bytesPerSecond()
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
