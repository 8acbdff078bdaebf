package catalog

import (
	"context"
	_ "embed"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

//go:embed together.sql
var togetherSQL string

// Promise is that of a secondary to change places if, and only if, the others do.
type Promise struct {
	Operation string // of this link alone
	Failover  string // of all of them
	Leader    string // the link in whose database, at the agent, it is decided
	Agent     string // id of the agent that drives them all
}

// ensureTogether makes the tables in a schema of a release that had none.
func ensureTogether(ctx context.Context, q Querier) (err error) {
	have, err := haveTogether(ctx, q)
	if err == nil && !have {
		_, err = q.Exec(ctx, togetherSQL)
	}
	return pg.Classify(err, "make the tables of failovers of several links")
}

func haveTogether(ctx context.Context, q Querier) (have bool, err error) {
	err = q.QueryRow(ctx, `SELECT to_regclass('twinspan.promise') IS NOT NULL`).Scan(&have)
	return have, pg.Classify(err, "look for failovers of several links")
}

// StorePromise keeps a link's promise instead of an earlier one.
func StorePromise(ctx context.Context, q Querier, link string, p Promise) error {
	if err := ensureTogether(ctx, q); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `INSERT INTO twinspan.promise (link, operation, failover, leader, agent)
		VALUES ($1::text::uuid, $2, $3, $4::text::uuid, $5::text::uuid)
		ON CONFLICT (link) DO UPDATE SET operation = excluded.operation, failover = excluded.failover, leader = excluded.leader, agent = excluded.agent`,
		link, p.Operation, p.Failover, p.Leader, p.Agent)
	return pg.Classify(err, "store what was promised to other links")
}

// PromiseOf reads what a link has promised for an operation; nil where it has nothing.
func PromiseOf(ctx context.Context, q Querier, link, operation string) (*Promise, error) {
	if have, err := haveTogether(ctx, q); err != nil || !have {
		return nil, err
	}
	p := Promise{Operation: operation}
	err := q.QueryRow(ctx, `SELECT failover, leader::text, agent::text FROM twinspan.promise WHERE link = $1::text::uuid AND operation = $2`,
		link, operation).Scan(&p.Failover, &p.Leader, &p.Agent)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &p, pg.Classify(err, "read what was promised to other links")
}

// BeginTogether stores that a failover of several links has begun, of which the link is one.
func BeginTogether(ctx context.Context, q Querier, link, failover string) error {
	if err := ensureTogether(ctx, q); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `INSERT INTO twinspan.together (failover, link) VALUES ($1, $2::text::uuid)`, failover, link)
	return pg.Classify(err, "store a failover of several links")
}

// SettleTogether decides a failover of several links, unless that was done, and returns what
// was decided. A failover of which nothing is stored is undone.
func SettleTogether(ctx context.Context, q Querier, failover string, decide bool) (decided bool, err error) {
	if have, err := haveTogether(ctx, q); err != nil || !have {
		return false, err
	}
	// Whoever comes second waits for the row, and finds what the first has stored.
	if _, err = q.Exec(ctx, `UPDATE twinspan.together SET decided = $2 WHERE failover = $1 AND decided IS NULL`, failover, decide); err == nil {
		err = q.QueryRow(ctx, `SELECT coalesce(bool_or(decided), false) FROM twinspan.together WHERE failover = $1`, failover).Scan(&decided)
	}
	return decided, pg.Classify(err, "decide a failover of several links")
}

// DecidedTogether lists the failovers of several links that were decided in a link's database.
func DecidedTogether(ctx context.Context, q Querier, link string) (failovers []string, err error) {
	if have, err := haveTogether(ctx, q); err != nil || !have {
		return nil, err
	}
	err = q.QueryRow(ctx, `SELECT coalesce(array_agg(failover ORDER BY failover), '{}') FROM twinspan.together WHERE link = $1::text::uuid AND decided`, link).Scan(&failovers)
	return failovers, pg.Classify(err, "read what was decided for several links")
}

// EndTogether forgets a failover of several links that nobody will ask for.
func EndTogether(ctx context.Context, q Querier, failover string) error {
	_, err := q.Exec(ctx, `DELETE FROM twinspan.together WHERE failover = $1`, failover)
	return pg.Classify(err, "forget a failover of several links")
}
