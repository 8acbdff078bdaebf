package pg

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// From version 17 on, event triggers can fire where a session begins, with its rights. Those in the ordinary mode do not
// where session_replication_role comes with the connection, which a superuser alone may send. What the first session with
// a server found there is remembered for those that follow: who is no superuser, or connects to an older server, does
// without.

// quietLogins are the roles at addresses whose sessions can begin in replica role.
var quietLogins sync.Map

func (d *DSN) login() string { return d.config.User + "@" + d.Address() }

// quiet says whether a session begins in replica role, and leaves it once it is there.
func (d *DSN) quiet(s Session) bool {
	_, known := quietLogins.Load(d.login())
	return known && !s.Apply && !s.Unseen && !s.Ordinary
}

// learnLogin remembers what a session is of.
func (d *DSN) learnLogin(conn *pgconn.PgConn) {
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 17 && conn.ParameterStatus("is_superuser") == "on" {
		quietLogins.Store(d.login(), true)
	} else {
		quietLogins.Delete(d.login())
	}
}

// settleQuiet is settle for a session that began in replica role.
func settleQuiet(ctx context.Context, conn *pgconn.PgConn) error {
	return conn.Exec(ctx, SettleSQL+`; SET session_replication_role = origin`).Close()
}
