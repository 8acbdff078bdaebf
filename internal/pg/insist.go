package pg

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// insistEvery is between two looks at who is in the way.
const insistEvery = time.Second

// Insist runs f, which uses the session, and ends whoever f waits for when it takes
// longer than patience: for what has to happen whatever any role holds. Prepared
// transactions it cannot end, sessions of agents it does not: f needs a lock_timeout.
func Insist(ctx context.Context, conn *pgx.Conn, patience time.Duration, f func() error) error {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		wait := time.NewTimer(patience)
		defer wait.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-wait.C:
			}
			endBlockers(ctx, conn)
			wait.Reset(insistEvery)
		}
	}()
	err := f()
	close(done)
	<-ended
	return err
}

// endBlockers ends, from a session of its own, those for whom one waits.
func endBlockers(ctx context.Context, waiting *pgx.Conn) {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	conn, err := pgx.ConnectConfig(ctx, waiting.Config())
	if err != nil {
		return // it is tried again
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, _ = conn.Exec(ctx, `SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
		WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1)) AND NOT (a.application_name LIKE 'twinspan/%' AND a.usename = session_user)`, waiting.PgConn().PID())
}
