package link

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// signal takes what the primary says at a place of the stream, and returns what
// is to be done there. Kinds that a newer primary may send are passed over only
// when they are of no consequence; there are none yet.
func (l *Link) signal(ctx context.Context, s apply.Signal) (*apply.Script, error) {
	switch s.Kind {
	case "ddl":
		return l.replay.Change(ctx, s)
	case "barrier":
		return nil, l.meetBarrier(s.Payload)
	}
	return nil, nil
}

// meetBarrier notes that everything before a failover's barrier is committed here.
func (l *Link) meetBarrier(payload []byte) error {
	var barrier struct{ Operation string }
	if err := json.Unmarshal(payload, &barrier); err != nil {
		return problem.Wrap(err, problem.Internal, "stream_corrupt", "read a barrier")
	}
	if f := l.currentFailover(barrier.Operation); f != nil {
		f.met.Do(func() { close(f.barrier) })
	}
	return nil
}

// twinExtensions lists what can be created on the secondary's server.
func (l *Link) twinExtensions(ctx context.Context) ([]string, error) {
	var names []string
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT name FROM pg_catalog.pg_available_extensions ORDER BY 1`)
		if err != nil {
			return pg.Classify(err, "list extensions")
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return pg.Classify(err, "list extensions")
	})
	return names, err
}
