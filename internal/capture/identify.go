package capture

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// identify makes sure that the session is with the server whose timeline was
// checked: an HA cluster may have changed its primary since.
func (s *Stream) identify(ctx context.Context, conn *pgconn.PgConn) error {
	if s.Timeline == 0 {
		return nil
	}
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 2 {
		return problem.New(problem.Internal, "timeline_unreadable", "the server's answer about its timeline is not one row")
	}
	if now := string(results[0].Rows[0][1]); now != strconv.FormatInt(s.Timeline, 10) {
		return problem.New(problem.Transient, "slot_unusable", "the server went from timeline %d to %s", s.Timeline, now).On(s.Object())
	}
	return nil
}

// protect has standbys of a server from 17 on take the slot over, however it was
// made (manual, "Replication Slot Synchronization").
func (s *Stream) protect(ctx context.Context, conn *pgconn.PgConn) error {
	var major int
	if _, err := fmt.Sscanf(conn.ParameterStatus("server_version"), "%d", &major); err != nil || major < 17 {
		return nil
	}
	results, err := conn.Exec(ctx, `SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = `+sqlname.Literal(s.Object())+` AND NOT failover AND NOT active`).ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) == 0 {
		return err
	}
	_, err = conn.Exec(ctx, "ALTER_REPLICATION_SLOT "+s.Object()+" (FAILOVER true)").ReadAll()
	return err
}
