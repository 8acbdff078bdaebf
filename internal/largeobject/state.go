package largeobject

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
)

// trust is how long what the server counts is believed to tell every change: a
// session that is idle may hold its counts back (pgstat.c).
const trust = time.Hour

// pass is the row of twinspan.large_object.
type pass struct {
	since    uint64 // of the last complete pass
	counters string
	looked   time.Time // when that pass looked at every object
	next     uint64    // of the pass under way, 0 when none is
	from     uint64    // what it looks from
	objects  int64
}

// span is a range of object ids, or what is left of it.
type span struct{ after, upto uint32 }

// Load reads how a link's large objects stand.
func Load(ctx context.Context, q catalog.Querier, link string) (State, error) {
	s := State{Every: DefaultEvery}
	var every int64
	var asOf *time.Time
	err := q.QueryRow(ctx, `SELECT every, as_of, objects, next IS NOT NULL FROM twinspan.large_object WHERE link = $1::text::uuid`, link).
		Scan(&every, &asOf, &s.Objects, &s.Running)
	if err == pgx.ErrNoRows {
		return s, nil
	}
	if err != nil {
		return s, pg.Classify(err, "read how the large objects stand")
	}
	s.Every = time.Duration(every) * time.Second
	if asOf != nil {
		s.AsOf = *asOf
	}
	return s, nil
}

// SetEvery stores how often passes are made; 0 is never by itself.
func SetEvery(ctx context.Context, q catalog.Querier, link string, every time.Duration) error {
	_, err := q.Exec(ctx, `INSERT INTO twinspan.large_object (link, every) VALUES ($1::text::uuid, $2) ON CONFLICT (link) DO UPDATE SET every = excluded.every`,
		link, int64(every/time.Second))
	return pg.Classify(err, "store how often large objects are brought")
}

func load(ctx context.Context, conn *pgx.Conn, link string) (pass, error) {
	var p pass
	var looked *time.Time
	_, err := conn.Exec(ctx, `INSERT INTO twinspan.large_object (link, every) VALUES ($1::text::uuid, $2) ON CONFLICT DO NOTHING`, link, int64(DefaultEvery/time.Second))
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT since, counters, looked, coalesce(next, 0), pass_since, objects FROM twinspan.large_object WHERE link = $1::text::uuid`, link).
			Scan(&p.since, &p.counters, &looked, &p.next, &p.from, &p.objects)
	}
	if looked != nil {
		p.looked = *looked
	}
	return p, pg.Classify(err, "read how the large objects stand")
}

// begin stores a plan. One that says that nothing has changed only moves the time.
func begin(ctx context.Context, conn *pgx.Conn, link string, plan Plan, began time.Time) (pass, error) {
	p, err := load(ctx, conn, link)
	if err != nil {
		return p, err
	}
	if plan.Same {
		_, err := conn.Exec(ctx, `UPDATE twinspan.large_object SET as_of = $2 WHERE link = $1::text::uuid`, link, began)
		return p, pg.Classify(err, "store how the large objects stand")
	}
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		var block int
		if err := tx.QueryRow(ctx, `SELECT current_setting('block_size')::int`).Scan(&block); err != nil {
			return err
		}
		if block != plan.Block {
			return differentBlocks(plan.Block, block)
		}
		_, err := tx.Exec(ctx, `UPDATE twinspan.large_object SET next = $2, pass_since = $3, pass_counters = $4, pass_began = $5, objects = $6
			WHERE link = $1::text::uuid`, link, int64(plan.Next), int64(plan.Since), plan.Counters, began, plan.Objects)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM twinspan.large_object_range WHERE link = $1::text::uuid`, link); err != nil {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"twinspan", "large_object_range"}, []string{"link", "upto", "after"},
			pgx.CopyFromSlice(len(plan.Bounds), func(i int) ([]any, error) {
				after := int64(0)
				if i > 0 {
					after = int64(plan.Bounds[i-1])
				}
				return []any{link, int64(plan.Bounds[i]), after}, nil
			}))
		return err
	})
	p.next, p.from, p.objects = plan.Next, plan.Since, plan.Objects
	return p, pg.Classify(err, "begin to bring large objects")
}

// leftOf lists what is left of the pass under way.
func leftOf(ctx context.Context, conn *pgx.Conn, link string) ([]span, error) {
	rows, err := conn.Query(ctx, `SELECT after, upto FROM twinspan.large_object_range WHERE link = $1::text::uuid ORDER BY upto`, link)
	if err != nil {
		return nil, pg.Classify(err, "list ranges of large objects")
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (span, error) {
		var after, upto int64
		err := row.Scan(&after, &upto)
		return span{uint32(after), uint32(upto)}, err
	})
	return list, pg.Classify(err, "list ranges of large objects")
}

// advance records, in the transaction that did it, that a range is done up to an
// object. Whoever did the same at the same time made it untrue.
func advance(ctx context.Context, tx pgx.Tx, link string, s span, done uint32) error {
	sql, args := `UPDATE twinspan.large_object_range SET after = $4 WHERE link = $1::text::uuid AND upto = $2 AND after = $3`,
		[]any{link, int64(s.upto), int64(s.after), int64(done)}
	if done == s.upto {
		sql, args = `DELETE FROM twinspan.large_object_range WHERE link = $1::text::uuid AND upto = $2 AND after = $3`, args[:3]
	}
	tag, err := tx.Exec(ctx, sql, args...)
	if err != nil {
		return pg.Classify(err, "record a range of large objects")
	}
	if tag.RowsAffected() != 1 {
		return lostRange()
	}
	return nil
}

// complete ends the pass under way, of which no range is left.
func complete(ctx context.Context, conn *pgx.Conn, link string, next uint64) error {
	tag, err := conn.Exec(ctx, `UPDATE twinspan.large_object SET since = next, counters = pass_counters, as_of = pass_began, looked = pass_began, next = NULL
		WHERE link = $1::text::uuid AND next = $2 AND NOT EXISTS (SELECT FROM twinspan.large_object_range r WHERE r.link = $1::text::uuid)`, link, int64(next))
	if err != nil {
		return pg.Classify(err, "record the end of a pass")
	}
	if tag.RowsAffected() != 1 {
		return lostRange()
	}
	return nil
}
