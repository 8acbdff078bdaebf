package gate

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
)

//go:embed aside.sql
var asideSQL string

// AsideSQL and BackSQL are statements: the first puts aside what of the users' would fire
// at what an agent applies to a secondary (triggers, rules and event triggers that are
// enabled for replicas), the second takes that back but for event triggers, which no
// replayed command changes. A schema change is made between
// BackSQL and AsideSQL, in one transaction, so that it finds the modes that it changes.
const (
	AsideSQL = `SELECT twinspan.put_aside()`
	BackSQL  = `SELECT twinspan.put_back_for_change()`
)

// MakeAside makes what AsideSQL and BackSQL call in a database that has no gate, and whose
// record of a link says that it is a secondary: a copy that is being made.
func MakeAside(ctx context.Context, q Querier) error {
	_, err := q.Exec(ctx, asideSQL+catalog.PrivateSQL)
	return pg.Classify(err, "prepare to put triggers aside")
}

// PutAside puts aside what would fire on a secondary. It does nothing where no gate was built
// (Shut).
func PutAside(ctx context.Context, conn *pgx.Conn) error {
	var have bool
	err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regprocedure('twinspan.put_aside()') IS NOT NULL`).Scan(&have)
	if err != nil || !have {
		return pg.Classify(err, "look for the gate")
	}
	return pg.Insist(ctx, conn, asidePatience, func() error {
		_, err := conn.Exec(ctx, `SET lock_timeout = '30s'; `+AsideSQL+`; RESET lock_timeout`)
		return pg.Classify(err, "put aside what fires on a secondary")
	})
}

// asidePatience is how long readers may keep a trigger or a rule from being changed.
const asidePatience = 10 * time.Second

// PutBack gives the users' triggers, rules and event triggers the modes back that they
// had, before a side takes writes. It can be repeated, and does nothing without a gate.
func PutBack(ctx context.Context, conn *pgx.Conn) error {
	var have bool
	err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regprocedure('twinspan.put_back()') IS NOT NULL`).Scan(&have)
	if err == nil && have {
		err = pg.Insist(ctx, conn, time.Second, func() error {
			_, err := conn.Exec(ctx, `SET lock_timeout = '30s'; SELECT twinspan.put_back(); RESET lock_timeout`)
			return err
		})
	}
	return pg.Classify(err, "enable triggers as they were")
}
