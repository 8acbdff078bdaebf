package auditor

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/audit"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

const (
	// mostTries is how often a position is tried for that is passed before it is known.
	mostTries = 20
	// positionPatience is how long a position may take to come: transactions of the primary
	// have to end for it.
	positionPatience = 2 * time.Minute
)

// sitting is what is compared at one position, and what of it differs there.
type sitting struct {
	a          *Auditor
	x          *meet.Sides
	comparison verify.Comparison
	began      time.Time // of the pass
	items      []item
	portions   map[[2]string]verify.Portion
	pace       audit.Pace
	places     map[[2]string]int // of items, by kind and name
	changed    map[int]bool
	odd        []oddity
	done       bool // the pass is over
	over       bool // what comes next needs more time than is left
}

// oddity is what differed at one position, of the item with the number.
type oddity struct {
	item  int
	found verify.Findings
}

// sit compares what comes next, at one position, and looks at another one again
// at what differs.
func (a *Auditor) sit(ctx context.Context) error {
	s := &sitting{a: a, places: map[[2]string]int{}, changed: map[int]bool{}}
	a.mu.Lock()
	s.items, s.began = slices.Clone(a.items), a.stored.Began
	a.mu.Unlock()
	s.number()
	s.pace.Rate = a.BytesPerSecond()
	s.comparison = verify.Comparison{Stored: true, Schema: true, Most: mostRows, Workers: 1, Reader: a.meets.Reader()}
	err := a.atPosition(ctx, func(ctx context.Context, x *meet.Sides) error {
		s.x = x
		return s.compare(ctx)
	})
	if len(s.odd) > 0 {
		if again := s.confirm(ctx); err == nil {
			err = again
		}
	}
	// What was compared is stored, whatever ended it.
	keep, stop := context.WithTimeout(context.WithoutCancel(ctx), restTime)
	defer stop()
	if stored := s.store(keep); err == nil {
		err = stored
	}
	return err
}

// atPosition calls f with both sides at one position, which ends soon, or when
// something is in the way.
func (a *Auditor) atPosition(ctx context.Context, f func(ctx context.Context, x *meet.Sides) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go a.watchObstacles(ctx, stop)
	// What is opened lives as long as the context, so that this is not one of its own.
	patience := time.AfterFunc(positionPatience, func() {
		stop(problem.New(problem.Transient, "transaction_in_the_way", "transactions on the primary do not end"))
	})
	x, err := a.open(ctx)
	patience.Stop()
	if err != nil {
		return err
	}
	defer x.Close(context.WithoutCancel(ctx))
	ctx, call := context.WithTimeoutCause(ctx, audit.LastCall, problem.New(problem.Transient, "audit_slow", "what is read at one position takes too long"))
	defer call()
	err = f(ctx, x)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// watchObstacles ends what is under way when something is in the way.
func (a *Auditor) watchObstacles(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if why := a.obstacle(); why != "" {
				stop(problem.New(problem.Transient, "audit_rests", "%s", why))
				return
			}
		}
	}
}

// open comes to a position without holding the secondary up: what is received
// lingers for some milliseconds until the position is known. Where that was too late it
// is tried again.
func (a *Auditor) open(ctx context.Context) (*meet.Sides, error) {
	r := a.side.Record()
	request := meet.SnapshotRequest{Reference: side.ReferenceOf(r), Rate: a.BytesPerSecond(), Workers: 1, Piece: audit.PieceBytes, Linger: audit.Linger}
	for try := 1; ; try++ {
		x, err := a.meets.Open(ctx, request, nil)
		switch {
		case err == nil:
			a.mu.Lock()
			a.pause = max(a.pause, x.Pause)
			a.mu.Unlock()
			return x, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case problem.CodeOf(err) != meet.ErrMissed.Code || try == mostTries:
			return nil, err
		}
		a.side.Wait(ctx, 100*time.Millisecond+rand.N(200*time.Millisecond))
	}
}

// compare compares until the time at this position is over, or the pass is.
func (s *sitting) compare(ctx context.Context) error {
	end := time.Now().Add(audit.Sitting)
	if err := s.list(ctx); err != nil {
		return err
	}
	plain := make([]audit.Item, len(s.items))
	for i := range s.items {
		plain[i] = s.items[i].Item
	}
	for time.Now().Before(end) && !s.over {
		next, found := audit.Next(plain, s.began)
		if !found {
			s.done = true
			return nil
		}
		if err := s.item(ctx, next, end); err != nil {
			return err
		}
		plain[next] = s.items[next].Item
	}
	return nil
}

// number notes where the items are.
func (s *sitting) number() {
	s.places = map[[2]string]int{}
	for i := range s.items {
		s.places[s.items[i].id()] = i
	}
}

// list brings the items up to date with what the databases consist of.
func (s *sitting) list(ctx context.Context) error {
	a, err := s.x.Primary.Contents(ctx)
	if err != nil {
		return err
	}
	if !a.Spans {
		return problem.New(problem.Transient, "agent_older", "the primary's agent is of an older release, which cannot be audited").
			WithHint("run the same release on both sides")
	}
	b, err := s.x.Secondary.Contents(ctx)
	if err != nil {
		return err
	}
	portions, skipped, err := s.comparison.Portions(a, b)
	if err != nil {
		return err
	}
	s.portions = map[[2]string]verify.Portion{}
	seen := map[[2]string]bool{}
	for _, p := range portions {
		kind, name := kindOf(p), p.Table.String()
		if kind == audit.Objects {
			name = ""
		}
		s.portions[[2]string{string(kind), name}] = p
		now := audit.Item{Kind: kind, Name: name, Bytes: p.Bytes, Divided: p.Spanned()}
		if !now.Fits(s.pace.Rate) {
			now.Skipped = "without a key of plain types it cannot be divided, and to read it whole takes longer than a position is kept"
		}
		s.know(seen, now)
	}
	for _, k := range skipped {
		s.know(seen, audit.Item{Kind: audit.Table, Name: k.Name, Skipped: k.Why})
	}
	s.know(seen, audit.Item{Kind: audit.Schema})
	s.know(seen, audit.Item{Kind: audit.Sequences})
	s.items = slices.DeleteFunc(s.items, func(i item) bool { return !seen[i.id()] })
	s.number()
	return nil
}

// kindOf is the kind of item that a portion is.
func kindOf(p verify.Portion) audit.Kind {
	switch {
	case verify.IsLargeObjects(p.Table):
		return audit.Objects
	case p.View:
		return audit.View
	}
	return audit.Table
}

// know takes what is known of an item now. What was begun with another key begins anew.
func (s *sitting) know(seen map[[2]string]bool, now audit.Item) {
	id := [2]string{string(now.Kind), now.Name}
	seen[id] = true
	i, have := s.places[id]
	if !have {
		s.items = append(s.items, item{Item: now})
		return
	}
	it := &s.items[i]
	it.Bytes, it.Divided, it.Skipped = now.Bytes, now.Divided, now.Skipped
	if p := s.portions[id]; len(it.Upto) > 0 && len(it.Upto) != len(p.Key) {
		it.Upto = nil
	}
	if it.Skipped != "" { // nothing is known of it any more
		it.Equal, it.Position, it.Compared, it.Upto, it.differs, it.fresh, it.Odd, it.more, it.Again = time.Time{}, "", time.Time{}, nil, nil, nil, false, false, false
	}
}

// begin notes that an item is compared, or gone on with.
func (s *sitting) begin(i int) {
	it := &s.items[i]
	s.changed[i] = true
	it.before = it.Compared
	if len(it.Upto) == 0 {
		it.Begun, it.Start, it.Odd, it.fresh, it.more = time.Now().UTC(), s.x.Position.String(), false, nil, false
	}
}

// item compares one item, or as much of it as the time allows.
func (s *sitting) item(ctx context.Context, i int, end time.Time) error {
	s.begin(i)
	it := &s.items[i]
	switch it.Kind {
	case audit.Sequences:
		return s.sequences(ctx, i)
	case audit.Schema:
		return s.schema(ctx, i)
	}
	p := s.portions[it.id()]
	if !it.Divided {
		// Both sides keep the rate themselves.
		if left := time.Until(end); audit.Takes(p.Bytes, s.pace.Rate) > left && left < audit.Sitting*3/4 {
			s.over = true // another time, with all the time there is
			return nil
		}
		if _, err := s.portion(ctx, i, p); err != nil {
			return err
		}
		s.complete(i)
		return nil
	}
	rows, whole := audit.Rows(p.Rows, p.Bytes), p.Bytes
	for time.Now().Before(end) {
		began := time.Now()
		upto, err := s.x.Secondary.Bound(ctx, p.Subject, it.Upto, rows)
		if problem.CodeOf(err) == "table_changed" {
			s.put(i)
			return nil
		}
		if err != nil {
			return err
		}
		// One sum for all of it: there are not so many rows that they had to be divided further.
		p.Span, p.Rows = &verify.Span{After: it.Upto, Upto: upto}, 1
		if read, err := s.portion(ctx, i, p); err != nil || !read {
			return err
		}
		pause := s.pace.Took(time.Now(), min(whole, audit.PieceBytes), time.Since(began))
		if it.Upto = upto; upto == nil {
			s.complete(i)
			return s.rest(ctx, pause)
		}
		if err := s.rest(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// rest waits, but not for ever.
func (s *sitting) rest(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// portion compares what can be compared at once, and says whether it could be read.
func (s *sitting) portion(ctx context.Context, i int, p verify.Portion) (read bool, err error) {
	finding, why, err := s.comparison.Portion(ctx, s.x.Primary, s.x.Secondary, p)
	switch {
	case err != nil:
		return false, err
	case why != "":
		s.put(i)
		return false, nil
	case finding != nil:
		s.items[i].Odd = true
		s.odd = append(s.odd, oddity{i, verify.Findings{Tables: []verify.TableFinding{*finding}}})
	}
	return true, nil
}

// put leaves an item that cannot be read now for the next pass: it counts as compared, and
// not as equal, and is late one day if that goes on.
func (s *sitting) put(i int) {
	it := &s.items[i]
	it.Compared, it.Upto, it.Again = time.Now().UTC(), nil, false
}

// complete notes that all of an item was compared.
func (s *sitting) complete(i int) {
	it := &s.items[i]
	it.Compared, it.Upto, it.Again = time.Now().UTC(), nil, false
	if !it.Odd {
		it.Equal, it.Position, it.differs, it.fresh = it.Begun, it.Start, nil, nil
	} else if !slices.ContainsFunc(s.odd, func(o oddity) bool { return o.item == i }) {
		it.differs = it.fresh // as found earlier in this comparison
	}
}

// sequences compares the sequences, which know no positions.
func (s *sitting) sequences(ctx context.Context, i int) error {
	r := s.a.side.Record()
	list, _, err := s.a.meets.SequencesApart(ctx, side.ReferenceOf(r))
	if err != nil {
		return err
	}
	it := &s.items[i]
	for _, d := range list {
		it.Odd = true
		it.fresh = append(it.fresh, api.Difference{
			Kind: "sequence", Object: d.Name, State: string(verify.Differs), Key: []api.Value{}, Columns: []string{}, Values: []api.Pair{},
			Primary: fmt.Sprint(d.Primary), Secondary: fmt.Sprint(d.Secondary), Repair: "twinspan link verify " + s.a.side.Name() + " --repair",
		})
	}
	it.differs = it.fresh
	s.complete(i)
	return nil
}

// schema compares what both sides consist of, but for what may differ (0013).
func (s *sitting) schema(ctx context.Context, i int) error {
	a, b, err := verify.Describe(ctx, s.x.Primary, s.x.Secondary)
	if err != nil {
		return err
	}
	found, err := s.comparison.CompareSchema(ctx, a, b)
	if err != nil {
		return err
	}
	if found.Undecided = nil; len(found.Schema) > 0 {
		s.items[i].Odd = true
		s.odd = append(s.odd, oddity{i, *found})
	}
	s.complete(i)
	return nil
}

// confirm looks at another position at what differed, and says what still does.
func (s *sitting) confirm(ctx context.Context) error {
	if slices.ContainsFunc(s.odd, func(o oddity) bool { return s.items[o.item].Kind == audit.Objects }) {
		// They come in passes: what was changed before the first look is there after one.
		if _, err := s.a.twin.Bring(ctx, false); err != nil {
			return s.abandon(err)
		}
	}
	counts, err := s.a.twin.Counts(ctx)
	if err != nil {
		return s.abandon(err)
	}
	err = s.a.atPosition(ctx, func(ctx context.Context, x *meet.Sides) error {
		for _, o := range s.odd {
			if err := s.comparison.Confirm(ctx, x.Primary, x.Secondary, &o.found); err != nil {
				return err
			}
			o.found.Schema = slices.DeleteFunc(o.found.Schema, func(d verify.SchemaDifference) bool { return !counts(d) })
			s.settle(o.item, &o.found, x.Position)
		}
		return nil
	})
	if err != nil {
		return s.abandon(err)
	}
	return nil
}

// abandon leaves what nobody could look at again for another time: the pass is not over
// before that. When it was compared last is what it was before, for what counts as never
// compared is late on an old link.
func (s *sitting) abandon(err error) error {
	s.done = false
	for _, o := range s.odd {
		if it := &s.items[o.item]; it.Odd {
			it.Compared, it.Upto, it.Again = it.before, nil, true
		}
	}
	return err
}

// settle notes what differs of an item at two positions.
func (s *sitting) settle(i int, found *verify.Findings, at lsn.LSN) {
	it := &s.items[i]
	for _, d := range verify.Shown(s.a.side.Name(), found) {
		if !slices.ContainsFunc(it.fresh, func(f api.Difference) bool { return verify.Identity(&f) == verify.Identity(&d) }) {
			it.fresh = append(it.fresh, d)
		}
	}
	for j := range found.Tables {
		it.more = it.more || found.Tables[j].More
	}
	if len(it.fresh) > mostRows {
		it.fresh, it.more = it.fresh[:mostRows], true
	}
	complete := len(it.Upto) == 0
	switch {
	case len(it.fresh) == 0 && complete:
		it.Odd = false
		s.complete(i)
	case complete:
		it.differs = it.fresh
	default:
		it.Odd = len(it.fresh) > 0
		for _, d := range it.fresh {
			if !slices.ContainsFunc(it.differs, func(f api.Difference) bool { return verify.Identity(&f) == verify.Identity(&d) }) {
				it.differs = append(it.differs, d)
			}
		}
	}
	if len(it.fresh) > 0 {
		s.a.side.Log.Warn("the audit found a difference", "object", it.title(), "count", len(it.fresh), "lsn", at)
	}
}

// store stores what has changed, and makes it known.
func (s *sitting) store(ctx context.Context) error {
	a := s.a
	a.mu.Lock()
	if speed := s.pace.Speed(); speed > 0 {
		a.speed = speed
	}
	before, ended := a.items, a.stored.Ended
	a.mu.Unlock()
	var list []catalog.AuditItem
	var gone [][2]string
	known := map[[2]string]*item{}
	for i := range before {
		known[before[i].id()] = &before[i]
	}
	for i := range s.items {
		old := known[s.items[i].id()]
		if !s.changed[i] && old != nil && old.Skipped == s.items[i].Skipped && old.Bytes == s.items[i].Bytes {
			continue
		}
		item, err := s.items[i].stored()
		if err != nil {
			return err
		}
		list = append(list, item)
	}
	for id := range known {
		if _, have := s.places[id]; !have {
			gone = append(gone, id)
		}
	}
	if s.done {
		ended = time.Now().UTC()
	}
	id := s.a.side.ID()
	err := s.a.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := catalog.StoreAuditItems(ctx, conn, id, list, gone); err != nil {
			return err
		}
		return catalog.StorePass(ctx, conn, id, s.began, ended)
	})
	if err != nil {
		return err
	}
	slices.SortFunc(s.items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	a.mu.Lock()
	a.items, a.stored.Ended = s.items, ended
	if s.done {
		a.urgent, a.again = a.again, false
	}
	a.mu.Unlock()
	if s.done {
		s.a.side.Log.Info("audit pass ended", "items", len(s.items), "dur", ended.Sub(s.began))
	}
	return nil
}
