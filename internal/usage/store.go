package usage

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
)

//go:embed usage.sql
var schemaSQL string

// Text returns the statements that make the package's tables.
func Text() string { return schemaSQL }

const (
	// keep is how long hours are kept.
	keep = "3 years"
	// mostVoids is how many are kept of an hour. One is enough to void it.
	mostVoids = 100
	// storeTimeout bounds what is asked of the server at once.
	storeTimeout = 20 * time.Second
)

// install makes the tables where they are missing.
func install(ctx context.Context, conn *pgx.Conn) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := catalog.Install(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, schemaSQL)
		return pg.Classify(err, "make the tables of usage")
	})
}

// there says whether the tables are. Whose they are is seen where they are read.
func there(ctx context.Context, conn *pgx.Conn) (have bool, err error) {
	err = conn.QueryRow(ctx, `SELECT pg_catalog.to_regclass('twinspan.usage_hour') IS NOT NULL AND pg_catalog.to_regclass('twinspan.usage_void') IS NOT NULL`).Scan(&have)
	return have, pg.Classify(err, "look for the tables of usage")
}

// inTables runs f in a transaction in which the tables are seen to be an agent's, and stay what
// they are: the owner of the database may make a schema of that name, as long as there is none.
func inTables(ctx context.Context, conn *pgx.Conn, f func(tx pgx.Tx) error) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := catalog.Trusted(ctx, tx, "usage_hour", "usage_void"); err != nil {
			return err
		}
		return f(tx)
	})
}

// store keeps an hour, and who voided hours.
func store(ctx context.Context, conn *pgx.Conn, h Hour, voids []Void) error {
	return inTables(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO twinspan.usage_hour (hour, tier, vcores, storage, used, role, passive, first_at, last_at, gap_seconds, unlogged)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (hour) DO UPDATE SET tier = excluded.tier, vcores = excluded.vcores, storage = excluded.storage,
			used = excluded.used, role = excluded.role, passive = excluded.passive, first_at = excluded.first_at, last_at = excluded.last_at, gap_seconds = excluded.gap_seconds, unlogged = excluded.unlogged`,
			h.Start, h.Tier, h.VCores, h.Storage, h.Used, h.Role, h.Passive, h.First, h.Last, h.Gap.Seconds(), h.Unlogged)
		if err != nil {
			return pg.Classify(err, "store an hour of usage")
		}
		for _, v := range voids {
			_, err := tx.Exec(ctx, `INSERT INTO twinspan.usage_void AS v (hour, role, database, application, client, first_at)
				SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM twinspan.usage_void WHERE hour = $1) < $7
				ON CONFLICT (hour, role, database, application, client) DO UPDATE SET first_at = least(v.first_at, excluded.first_at)`,
				v.Hour, v.Role, v.Database, v.Application, v.Client, v.First, mostVoids)
			if err != nil {
				return pg.Classify(err, "store who worked on the instance")
			}
		}
		_, err = tx.Exec(ctx, `WITH old AS (DELETE FROM twinspan.usage_hour WHERE hour < pg_catalog.now() - interval '`+keep+`' RETURNING hour)
			DELETE FROM twinspan.usage_void WHERE hour < pg_catalog.now() - interval '`+keep+`'`)
		return pg.Classify(err, "forget old usage")
	})
}

// read returns the hours that begin between two moments, the last one before them, and who voided them; began is when the first of all began,
// zero where there is none.
func read(ctx context.Context, conn *pgx.Conn, from, until time.Time) (hours []Hour, voids []Void, began time.Time, err error) {
	err = inTables(ctx, conn, func(tx pgx.Tx) error {
		hours, voids, began, err = readIn(ctx, tx, from, until)
		return err
	})
	return hours, voids, began, err
}

func readIn(ctx context.Context, tx pgx.Tx, from, until time.Time) (hours []Hour, voids []Void, began time.Time, err error) {
	var first *time.Time
	if err := tx.QueryRow(ctx, `SELECT min(hour) FROM twinspan.usage_hour`).Scan(&first); err != nil {
		return nil, nil, began, pg.Classify(err, "read the first hour of usage")
	}
	if first != nil {
		began = first.UTC()
	}
	rows, err := tx.Query(ctx, `SELECT hour, tier, vcores, storage, used, role, passive, first_at, last_at, gap_seconds, unlogged FROM twinspan.usage_hour
		WHERE hour >= coalesce((SELECT max(hour) FROM twinspan.usage_hour WHERE hour < $1), $1) AND hour < $2 ORDER BY hour`, from, until)
	if err != nil {
		return nil, nil, began, pg.Classify(err, "read the hours of usage")
	}
	hours, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hour, err error) {
		var gap float64
		err = row.Scan(&h.Start, &h.Tier, &h.VCores, &h.Storage, &h.Used, &h.Role, &h.Passive, &h.First, &h.Last, &gap, &h.Unlogged)
		h.Start, h.First, h.Last, h.Gap = h.Start.UTC(), h.First.UTC(), h.Last.UTC(), time.Duration(gap*float64(time.Second))
		return h, err
	})
	if err != nil {
		return nil, nil, began, pg.Classify(err, "read the hours of usage")
	}
	rows, err = tx.Query(ctx, `SELECT hour, role, database, application, client, first_at FROM twinspan.usage_void WHERE hour >= $1 AND hour < $2 ORDER BY first_at`, from, until)
	if err != nil {
		return nil, nil, began, pg.Classify(err, "read who worked on the instance")
	}
	voids, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (v Void, err error) {
		err = row.Scan(&v.Hour, &v.Role, &v.Database, &v.Application, &v.Client, &v.First)
		v.Hour, v.First = v.Hour.UTC(), v.First.UTC()
		return v, err
	})
	return hours, voids, began, pg.Classify(err, "read who worked on the instance")
}
