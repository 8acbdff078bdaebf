package link

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
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/verify"
)

// The methods by which a secondary compares schemas (docs/design/0013-drift.md).
const (
	MethodSchemaSign = "schema.sign" // has anything changed in your catalogs?
	MethodSchemaRead = "schema.read" // what is your schema?
)

// SchemaSign is what of a primary's catalogs can be had for next to nothing.
type SchemaSign struct {
	Sign    string `json:"sign"`    // changes when the catalogs do
	Follows bool   `json:"follows"` // event triggers put schema changes into the stream
}

// SchemaReadRequest asks for the schema, or its digest alone.
type SchemaReadRequest struct {
	Reference
	Whole  bool `json:"whole"`
	Format int  `json:"format"` // verify.Format of who asks
}

// SchemaRead answers it.
type SchemaRead struct {
	Digest   verify.Digest  `json:"digest"`
	Schema   *verify.Schema `json:"schema,omitempty"` // nil unless asked for
	Position lsn.LSN        `json:"position"`         // whoever has applied this has at least this schema
}

const (
	// signPause is the time between two looks at the signs of a change.
	signPause = 5 * time.Second
	// schemaQuiet is how long the catalogs have to be still before they are compared,
	// and schemaBusy how long a comparison is put off for that.
	schemaQuiet = 5 * time.Second
	schemaBusy  = time.Minute
	// signBelieved is how long a sign counts that does not change: a session that
	// rests may hold its counts back (pgstat.c).
	signBelieved = 10 * time.Minute
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

// schemaWatch is what a side knows of schema changes.
type schemaWatch struct {
	mu     sync.Mutex
	loaded bool
	stored catalog.Watch

	changes api.SchemaChanges // as the primary told last; guarded by the link's mutex

	reader *verify.Reader // guarded by the link's mutex

	// What two schemas, known by their digests, differ in, as far as it counts; of the
	// schema loop alone.
	glanced   [2]verify.Digest
	glancedAt time.Time
	differ    []verify.SchemaDifference
}

// reader tells what differs in words alone.
func (l *Link) reader() *verify.Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.schema.reader == nil {
		l.schema.reader = &verify.Reader{DSN: l.dsn, Link: l.record.Name}
	}
	return l.schema.reader
}

// schemaPace decides when schemas are compared.
type schemaPace struct {
	equal     string    // the signs when both schemas were found equal
	equalAt   time.Time //
	last      string    // the signs that were seen last
	changedAt time.Time // since when they are not those of equal
	still     time.Time // since when they are what they are
}

// due says whether to compare now.
func (p *schemaPace) due(now time.Time, sign string) bool {
	if sign != p.last {
		if p.last == p.equal {
			p.changedAt = now
		}
		p.last, p.still = sign, now
	}
	if sign == p.equal {
		return now.Sub(p.equalAt) >= signBelieved
	}
	return now.Sub(p.still) >= schemaQuiet || now.Sub(p.changedAt) >= schemaBusy
}

// settled notes that the schemas are as they may be, at these signs.
func (p *schemaPace) settled(now time.Time, sign string) { p.equal, p.equalAt = sign, now }

// schemaLoop compares the schemas while the twin is in step. What no event trigger
// sees would otherwise drift without a word.
func (l *Link) schemaLoop(ctx context.Context) {
	var pace schemaPace
	var failing time.Time
	for ctx.Err() == nil {
		if r := l.snapshot(); role.Role(r.Role) == role.Secondary && role.Phase(r.Phase) == role.Replicating && !r.Deleting {
			err := l.watchSchema(ctx, &pace)
			switch {
			case err == nil:
				failing = time.Time{}
				l.setAside("schema_unchecked", nil)
			case ctx.Err() == nil:
				if failing.IsZero() {
					failing = time.Now()
				}
				l.noteUnchecked(err, time.Since(failing))
			}
		} else {
			pace, failing = schemaPace{}, time.Time{}
		}
		select {
		case <-ctx.Done():
		case <-time.After(signPause + rand.N(signPause/5)):
		}
	}
}

// noteUnchecked makes a problem of schemas that cannot be compared for long.
func (l *Link) noteUnchecked(err error, since time.Duration) {
	l.log.Debug("schemas not compared", "err", err)
	waits := problem.CodeOf(err) == "transaction_in_the_way" // which was waited for
	if since < uncheckedAfter && !waits || problem.CodeOf(err) == "peer_unreachable" {
		return
	}
	hint := "see what keeps the agents from reading both schemas; they try again by themselves"
	if waits {
		hint = "end that transaction; the link looks again by itself"
	}
	l.setAside("schema_unchecked", problem.Wrap(err, problem.Transient, "schema_unchecked", "the schemas cannot be compared").WithHint("%s", hint))
}

// watchSchema looks for signs of a change, and compares where there are some.
func (l *Link) watchSchema(ctx context.Context, pace *schemaPace) error {
	r := l.snapshot()
	theirs, err := ask[SchemaSign](ctx, l, MethodSchemaSign, Reference{ID: r.ID, Epoch: r.Epoch})
	if err != nil {
		return err
	}
	changes := api.Compared
	if theirs.Follows {
		changes = api.Followed
	}
	l.mu.Lock()
	l.schema.changes = changes
	l.mu.Unlock()
	ours, err := l.readSign(ctx)
	if err != nil {
		return err
	}
	sign := theirs.Sign + "/" + ours.Sign
	if !pace.due(time.Now(), sign) {
		return nil
	}
	began := time.Now()
	same, err := l.compareSchemas(ctx)
	if err != nil {
		return err
	}
	if same {
		pace.settled(time.Now(), sign)
	}
	l.log.Debug("schemas compared", "same", same, "dur", time.Since(began))
	return nil
}

// readSign reads this side's. Sums of what the server counts of its catalogs cost
// next to nothing; vacuum and analyze write in place and are not counted.
func (l *Link) readSign(ctx context.Context) (sign SchemaSign, err error) {
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
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

// readSchema reads this side's schema as it is now.
func (l *Link) readSchema(ctx context.Context) (*verify.Schema, error) {
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/schema", Settings: map[string]string{"max_parallel_workers_per_gather": "0"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, pg.Classify(err, "read the schema")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	schema, err := verify.ReadSchema(ctx, tx)
	if err == nil {
		l.noteUnknown(ctx, schema.Unknown)
	}
	return schema, err
}

// noteUnknown tells once of options that this release does not know, and which are
// therefore not compared: a server's own, or those of a newer version.
func (l *Link) noteUnknown(ctx context.Context, list []verify.Unknown) {
	const code = "option_not_compared"
	r := l.snapshot()
	var notices []catalog.Notice
	for _, u := range list {
		subject := u.Name + " of " + u.Of
		if !slices.ContainsFunc(r.Notices, func(n catalog.Notice) bool { return n.Code == code && n.Subject == subject }) {
			l.log.Info("an option is not compared", "subject", subject)
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: code, Subject: subject,
				Text: "the option is not known to this release of twinspan, which does not compare it"})
		}
	}
	if err := l.note(ctx, notices); err != nil {
		l.log.Debug("notices not stored", "err", err)
	}
}

// HandleSchemaSign answers the secondary.
func (l *Link) HandleSchemaSign(ctx context.Context, ref Reference, s *peer.Stream) error {
	return l.answer(ctx, ref, s, func(ctx context.Context) (any, error) { return l.readSign(ctx) })
}

// HandleSchemaRead answers the secondary.
func (l *Link) HandleSchemaRead(ctx context.Context, request SchemaReadRequest, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		if err := verify.Comparable(verify.Format, request.Format); err != nil {
			return nil, err
		}
		schema, err := l.readSchema(ctx)
		if err != nil {
			return nil, err
		}
		read := SchemaRead{Digest: schema.Digest()}
		if request.Whole {
			read.Schema = schema
		}
		err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return endOfLog(ctx, conn, &read.Position) })
		return read, err
	})
}

// compareSchemas compares, and says whether both are as they may be. Where they
// look different at two moments, they are looked at where one moment is both's.
func (l *Link) compareSchemas(ctx context.Context) (same bool, err error) {
	watch, err := l.schemaState(ctx)
	if err != nil {
		return false, err
	}
	list, err := l.glance(ctx)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(list, func(d verify.SchemaDifference) bool { return weigh(d, watch) >= mends }) {
		return true, l.noteGlance(ctx, list)
	}
	list, at, err := l.lookExactly(ctx)
	if err != nil {
		return false, err
	}
	return true, l.noteDrift(ctx, list, at)
}

// lookExactly returns what differs at several positions, in the same words.
func (l *Link) lookExactly(ctx context.Context) (seen []verify.SchemaDifference, at lsn.LSN, err error) {
	for look := range driftLooks {
		found, position, err := l.exactDifferences(ctx)
		if err != nil {
			return nil, 0, err
		}
		if at = position; look == 0 {
			seen = found
		}
		seen = slices.DeleteFunc(seen, func(d verify.SchemaDifference) bool {
			return !slices.ContainsFunc(found, func(f verify.SchemaDifference) bool { return driftOf(f).Same(driftOf(d)) })
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
func (l *Link) glance(ctx context.Context) ([]verify.SchemaDifference, error) {
	r := l.snapshot()
	request := SchemaReadRequest{Reference: Reference{ID: r.ID, Epoch: r.Epoch}, Format: verify.Format}
	w := &l.schema
	for {
		theirs, err := ask[SchemaRead](ctx, l, MethodSchemaRead, request)
		if err != nil {
			return nil, err
		}
		if err := l.awaitApplied(ctx, theirs.Position); err != nil {
			return nil, err
		}
		ours, err := l.readSchema(ctx)
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
		case digests == w.glanced && time.Since(w.glancedAt) < signBelieved:
			return slices.Clone(w.differ), nil
		case theirs.Schema != nil:
			list, err := l.reader().Settle(ctx, verify.CompareSchemas(theirs.Schema, ours))
			if err == nil {
				w.glanced, w.glancedAt, w.differ = digests, time.Now(), slices.Clone(list)
			}
			return list, err
		}
		request.Whole = true
	}
}

// awaitApplied waits until the twin has applied a position.
func (l *Link) awaitApplied(ctx context.Context, position lsn.LSN) error {
	end := time.Now().Add(driftPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for l.appliedPosition() < position {
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
func (l *Link) exactDifferences(ctx context.Context) ([]verify.SchemaDifference, lsn.LSN, error) {
	r := l.snapshot()
	x, err := l.openSides(ctx, SnapshotRequest{Reference: Reference{ID: r.ID, Epoch: r.Epoch}, Workers: 1}, nil)
	if err != nil {
		return nil, 0, err
	}
	defer x.close(context.WithoutCancel(ctx))
	c := verify.Comparison{NoRows: true, Schema: true, Workers: 1, Reader: l.reader()}
	found, err := c.Compare(ctx, x.primary, x.secondary)
	if err != nil {
		return nil, 0, err
	}
	return slices.Concat(found.Schema, found.Undecided), x.position, nil
}
