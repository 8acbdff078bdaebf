package pg

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/problem"
)

// startLook is how long it is looked at most why a server begins no session.
const startLook = 2 * time.Second

// noteAnswers makes the connections of a session that is to begin note that the server has said
// something. It does so from a process of its own for the session (postmaster.c), which then reads the
// catalogs.
func noteAnswers(c *pgx.ConnConfig) *atomic.Bool {
	answered := &atomic.Bool{}
	dial := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if s, ok := conn.(*socket); ok {
			s.answered = answered
		}
		return conn, err
	}
	return answered
}

// notBegun says who keeps the server from beginning sessions in this database: whoever has locked a catalog, which
// every new session reads (postinit.c, InitPostgres). It looks from another database; nil where nobody is seen.
func (d *DSN) notBegun(ctx context.Context, op string) *problem.Error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), startLook)
	defer stop()
	for _, other := range []string{"postgres", "template1"} {
		if other == d.Database() {
			continue
		}
		conn, err := pgx.ConnectConfig(ctx, d.WithDatabase(other).session(Session{Name: "look"}))
		if err != nil {
			continue
		}
		defer conn.Close(context.WithoutCancel(ctx))
		list, err := holders(ctx, conn, `SELECT DISTINCT `+holderColumns+` FROM pg_catalog.pg_locks l `+holderJoins+`
			WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation < 16384
			AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = $1::text) ORDER BY 5, 1`, d.Database())
		if err == nil {
			return Waited(op+d.String()+": the server begins no session, for a catalog is locked", list)
		}
	}
	return nil
}
