package catalog

import (
	"context"
	"encoding/json"
	"time"

	"github.com/twinspan/twinspan/internal/pg"
)

// Failover is the last change of roles.
type Failover struct {
	Type        string    `json:"type"` // planned, forced
	At          time.Time `json:"at"`
	HoldSeconds float64   `json:"holdSeconds"`
	Operation   string    `json:"operation,omitempty"` // of a planned one
}

// Turn stores a change of roles or of epochs. With the role it forgets how the copy
// was made: its positions are those of a log that is not followed any more. Nothing is
// stored, and the answer is a conflict, unless role, phase, epoch and operation are
// still those of before: whoever decides does so once.
func Turn(ctx context.Context, q Querier, before, next *Link) error {
	trouble, err := encode(next.Problem)
	if err != nil {
		return err
	}
	var failover any
	if next.LastFailover != nil {
		b, err := json.Marshal(next.LastFailover)
		if err != nil {
			return err
		}
		failover = string(b)
	}
	err = updateIf(ctx, q, before, `role = $3, phase = $4, epoch = $5, seeded = $6, suspended = $7, change = $8, problem = $9::text::jsonb, operation = $10,
		diverged = $11, parted_lsn = $12::text::pg_lsn, start_lsn = $13::text::pg_lsn, system_id = $14, primary_address = $15, last_failover = $16::text::jsonb,
		timeline = 0, renewing = false`,
		`role = $17 AND phase = $18 AND operation = $19`,
		next.Role, next.Phase, next.Epoch, next.Seeded, next.Suspended, next.Change, trouble, next.Operation,
		next.Diverged, next.Parted.String(), next.StartLSN.String(), next.SystemID, next.PrimaryAddress, failover,
		before.Role, before.Phase, before.Operation)
	if err != nil {
		return err
	}
	next.Timeline, next.Renewing = 0, false
	if before.Role == next.Role {
		return nil
	}
	for _, table := range []string{"seed_session", "seed_chunk", "seed_table", "seed_entry"} {
		if _, err := q.Exec(ctx, `DELETE FROM twinspan.`+table+` WHERE link = $1::text::uuid`, before.ID); err != nil {
			return pg.Classify(err, "forget how the copy was made")
		}
	}
	return nil
}
