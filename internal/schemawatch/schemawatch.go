// Package schemawatch compares the schemas of both sides of a link while the twin is in step, at
// the secondary, and does what a difference calls for: nothing, a warning, an index that is built,
// an owner that is given, or the end of the link's work (docs/design/0013-drift.md). What a
// difference means is package drift's to say.
package schemawatch

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/drift"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// MethodSign asks the primary whether anything has changed in its catalogs
// (docs/design/0013-drift.md).
const MethodSign = "schema.sign"

// Sign is what of a primary's catalogs can be had for next to nothing.
type Sign struct {
	Sign    string `json:"sign"`    // changes when the catalogs do
	Follows bool   `json:"follows"` // event triggers put schema changes into the stream
}

const (
	// signPause is the time between two looks at the signs of a change.
	signPause = 5 * time.Second
	// driftLooks is at how many exact positions a difference is seen, in the same
	// words, before it counts; driftPause is about the time between them. Functions
	// that print definitions look at the catalogs of the moment, not of the snapshot.
	driftLooks = 3
	driftPause = 2 * time.Second
	// uncheckedAfter is how long schemas may not be compared unremarked.
	uncheckedAfter = 2 * time.Minute
	// driftPatience is how long the applier may take to come where the primary was read.
	driftPatience = 30 * time.Second
)

// Twin is what a watch needs of the link whose twin it looks at.
type Twin struct {
	// Applied is up to where the primary's log is applied, as far as known.
	Applied func() lsn.LSN
	// MayOwn says whether a role may own what it owns on the primary.
	MayOwn func(ctx context.Context, conn *pgx.Conn, owner string) (bool, error)
	// Make makes relations that no event trigger saw made, and returns those that were not.
	Make func(ctx context.Context, list []verify.SchemaDifference) (refused []catalog.Drift, err error)
}

// Watch compares the schemas of both sides while the twin is in step: the secondary asks, the
// primary answers.
type Watch struct {
	side    *side.Side
	service *side.Service
	meets   *meet.Secondary
	with    Twin

	changing sync.Mutex // held while what is stored is read or changed, before the session

	mu      sync.Mutex // guards what follows
	loaded  bool
	stored  catalog.Watch
	changes api.SchemaChanges // as the primary told last

	// What two schemas, known by their digests, differ in, as far as it counts; of Run alone.
	glanced   [2]verify.Digest
	glancedAt time.Time
	differ    []verify.SchemaDifference
}

// New returns the watch of a side, which answers as the service does.
func New(s *side.Side, service *side.Service, meets *meet.Secondary, with Twin) *Watch {
	return &Watch{side: s, service: service, meets: meets, with: with}
}

// Forget has what is stored read again, for the side has another role now.
func (w *Watch) Forget() {
	w.changing.Lock()
	defer w.changing.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded, w.changes = false, ""
}

// Changes says how schema changes of the primary are seen, as it told last.
func (w *Watch) Changes() api.SchemaChanges {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

// Run compares the schemas while the twin is in step. What no event trigger
// sees would otherwise drift without a word.
func (w *Watch) Run(ctx context.Context) {
	var pace drift.Pace
	var failing time.Time
	for ctx.Err() == nil {
		if r := w.side.Record(); role.Role(r.Role) == role.Secondary && role.Phase(r.Phase) == role.Replicating && !r.Deleting {
			err := w.watch(ctx, &pace)
			switch {
			case err == nil:
				failing = time.Time{}
				w.side.Warn("schema_unchecked", nil)
			case ctx.Err() == nil:
				if failing.IsZero() {
					failing = time.Now()
				}
				w.noteUnchecked(err, time.Since(failing))
			}
		} else {
			pace, failing = drift.Pace{}, time.Time{}
		}
		select {
		case <-ctx.Done():
		case <-time.After(signPause + rand.N(signPause/5)):
		}
	}
}

// noteUnchecked makes a problem of schemas that cannot be compared for long.
func (w *Watch) noteUnchecked(err error, since time.Duration) {
	w.side.Log.Debug("schemas not compared", "err", err)
	waits := problem.CodeOf(err) == "transaction_in_the_way" // which was waited for
	if since < uncheckedAfter && !waits || problem.CodeOf(err) == "peer_unreachable" {
		return
	}
	hint := "see what keeps the agents from reading both schemas; they try again by themselves"
	if waits {
		hint = "end that transaction; the link looks again by itself"
	}
	w.side.Warn("schema_unchecked", problem.Wrap(err, problem.Transient, "schema_unchecked", "the schemas cannot be compared").WithHint("%s", hint))
}

// watch looks for signs of a change, and compares where there are some.
func (w *Watch) watch(ctx context.Context, pace *drift.Pace) error {
	r := w.side.Record()
	theirs, err := side.Ask[Sign](ctx, w.side, MethodSign, side.ReferenceOf(r))
	if err != nil {
		return err
	}
	changes := api.Compared
	if theirs.Follows {
		changes = api.Followed
	}
	w.mu.Lock()
	w.changes = changes
	w.mu.Unlock()
	ours, err := w.readSign(ctx)
	if err != nil {
		return err
	}
	sign := theirs.Sign + "/" + ours.Sign
	if !pace.Due(time.Now(), sign) {
		return nil
	}
	began := time.Now()
	same, err := w.compare(ctx)
	if err != nil {
		return err
	}
	if same {
		pace.Settled(time.Now(), sign)
	}
	w.side.Log.Debug("schemas compared", "same", same, "dur", time.Since(began))
	return nil
}

// readSign reads this side's. Sums of what the server counts of its catalogs cost
// next to nothing; vacuum and analyze write in place and are not counted.
func (w *Watch) readSign(ctx context.Context) (sign Sign, err error) {
	err = w.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce(sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid)), 0)::text
			FROM pg_catalog.pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
			AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject', 'pg_largeobject_metadata', 'pg_replication_origin')`).Scan(&sign.Sign)
		if err != nil {
			return pg.Classify(err, "read what is counted of the catalogs")
		}
		sign.Follows, err = capture.Follows(ctx, conn)
		return err
	})
	return sign, err
}

// HandleSign answers the secondary.
func (w *Watch) HandleSign(ctx context.Context, ref side.Reference, s *peer.Stream) error {
	return w.service.Answer(ctx, ref, s, func(ctx context.Context) (any, error) { return w.readSign(ctx) })
}

// compare compares, and says whether both are as they may be. Where they
// look different at two moments, they are looked at where one moment is both's.
func (w *Watch) compare(ctx context.Context) (same bool, err error) {
	stored, err := w.State(ctx)
	if err != nil {
		return false, err
	}
	list, err := w.glance(ctx)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(list, func(d verify.SchemaDifference) bool { return drift.Weigh(d, stored) >= drift.Mends }) {
		return true, w.noteGlance(ctx, list)
	}
	list, at, err := w.lookExactly(ctx)
	if err != nil {
		return false, err
	}
	return true, w.noteDrift(ctx, list, at)
}

// lookExactly returns what differs at several positions, in the same words.
func (w *Watch) lookExactly(ctx context.Context) (seen []verify.SchemaDifference, at lsn.LSN, err error) {
	for look := range driftLooks {
		found, position, err := w.exactDifferences(ctx)
		if err != nil {
			return nil, 0, err
		}
		if at = position; look == 0 {
			seen = found
		}
		seen = slices.DeleteFunc(seen, func(d verify.SchemaDifference) bool {
			return !slices.ContainsFunc(found, func(f verify.SchemaDifference) bool { return drift.Of(f).Same(drift.Of(d)) })
		})
		if len(seen) == 0 || look == driftLooks-1 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		case <-time.After(driftPause + rand.N(driftPause)):
		}
	}
	return seen, at, nil
}

// glance compares the schemas at two moments, the secondary's being the later one,
// by their digests first. What digests were found to differ in is remembered: servers that
// print the same in other words have different ones as long as they live.
func (w *Watch) glance(ctx context.Context) ([]verify.SchemaDifference, error) {
	r := w.side.Record()
	request := meet.SchemaReadRequest{Reference: side.ReferenceOf(r), Format: verify.Format}
	for {
		theirs, err := side.Ask[meet.SchemaRead](ctx, w.side, meet.MethodSchemaRead, request)
		if err != nil {
			return nil, err
		}
		if err := w.awaitApplied(ctx, theirs.Position); err != nil {
			return nil, err
		}
		ours, err := meet.ReadSchema(ctx, w.side)
		if err != nil {
			return nil, err
		}
		if err := verify.Comparable(theirs.Digest.Format, ours.Format); err != nil {
			return nil, err
		}
		digests := [2]verify.Digest{theirs.Digest, ours.Digest()}
		switch {
		case digests[0].Equal(digests[1]):
			return nil, nil
		case digests == w.glanced && time.Since(w.glancedAt) < drift.SignBelieved:
			return slices.Clone(w.differ), nil
		case theirs.Schema != nil:
			list, err := w.meets.Reader().Settle(ctx, verify.CompareSchemas(theirs.Schema, ours))
			if err == nil {
				w.glanced, w.glancedAt, w.differ = digests, time.Now(), slices.Clone(list)
			}
			return list, err
		}
		request.Whole = true
	}
}

// awaitApplied waits until the twin has applied a position.
func (w *Watch) awaitApplied(ctx context.Context, position lsn.LSN) error {
	end := time.Now().Add(driftPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for w.with.Applied() < position {
		if time.Now().After(end) {
			return problem.New(problem.Transient, "link_interrupted", "the twin is behind: the schemas are compared when it is in step")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// exactDifferences compares the schemas at one position.
func (w *Watch) exactDifferences(ctx context.Context) ([]verify.SchemaDifference, lsn.LSN, error) {
	r := w.side.Record()
	x, err := w.meets.Open(ctx, meet.SnapshotRequest{Reference: side.ReferenceOf(r), Workers: 1}, nil)
	if err != nil {
		return nil, 0, err
	}
	defer x.Close(context.WithoutCancel(ctx))
	c := verify.Comparison{NoRows: true, Schema: true, Workers: 1, Reader: w.meets.Reader()}
	found, err := c.Compare(ctx, x.Primary, x.Secondary)
	if err != nil {
		return nil, 0, err
	}
	return slices.Concat(found.Schema, found.Undecided), x.Position, nil
}
