package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Beginner is a session, or a transaction in which another is nested.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// InTx runs f in a transaction that is committed when f returns nil. What beginning
// and committing fail with is a problem like any other, so a lost connection is
// Transient.
func InTx(ctx context.Context, on Beginner, f func(tx pgx.Tx) error) error {
	return Classify(pgx.BeginFunc(ctx, on, f), "run a transaction")
}
