// Package pg is how Twinspan speaks to PostgreSQL: connection strings, sessions
// with the settings that data needs to cross unchanged, errors sorted into
// kinds, and raw connections for the bulk paths.
package pg

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// DSN is a parsed connection string to one instance. It is immutable; its
// String never shows the password.
type DSN struct {
	config *pgx.ConnConfig
	params map[string]string // for client programs (passedOn), from the string and its service; no secret
	guard  Guard             // of the sessions; nil lets every one be
}

// Guard looks at a session before anything is done in it. Its error ends the session, and
// is what Connect returns.
type Guard func(ctx context.Context, conn *pgconn.PgConn) error

// ParseDSN reads a libpq connection string (URL or key=value). Several hosts
// are one HA cluster: sessions go to the member that is not in recovery.
func ParseDSN(dsn string) (*DSN, error) {
	text, err := keywords(dsn)
	if err != nil {
		return nil, err
	}
	text, params := settled(text)
	config, err := pgx.ParseConfig(withParameter(text, "passfile", os.DevNull)) // see passwordFromFile
	var file *fs.PathError
	if errors.As(err, &file) {
		return nil, problem.Wrap(file, problem.Invalid, "dsn_invalid", "the connection string names a file that cannot be read")
	}
	if err != nil {
		return nil, unreadableString() // pgx's message can quote the string, and with it the password
	}
	config.ConnectTimeout = 10 * time.Second
	if config.Password == "" {
		config.Password = passwordFromFile(config, params)
	}
	if err := ownParameters(config); err != nil {
		return nil, err
	}
	d := &DSN{config: config, params: forPrograms(params)}
	// Fallbacks alone say nothing: one host has them too, with and without TLS.
	if hosts, _ := d.members(); len(hosts) > 1 {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	return d, nil
}

// Database returns the name of the database that the string names.
func (d *DSN) Database() string { return d.config.Database }

// User returns the name of the role that sessions log in as.
func (d *DSN) User() string { return d.config.User }

// Address returns the first host and port, as host:port.
func (d *DSN) Address() string {
	return net.JoinHostPort(d.config.Host, strconv.Itoa(int(d.config.Port)))
}

// WithDatabase returns the same string naming another database.
func (d *DSN) WithDatabase(name string) *DSN {
	c := d.config.Copy()
	c.Database = name
	return &DSN{config: c, params: d.params}
}

// Guarded returns the same string, with a guard of its sessions. A string for another
// database (WithDatabase) has none.
func (d *DSN) Guarded(guard Guard) *DSN {
	return &DSN{config: d.config, params: d.params, guard: guard}
}

// String says where it leads, without password. It is a method of the value too,
// for else printing one would print all of it.
func (d DSN) String() string {
	return d.config.User + "@" + d.Address() + "/" + d.config.Database
}

// Session says what a session is for.
type Session struct {
	// Name is shown in pg_stat_activity behind "twinspan/", for instance
	// "sales/apply". Required: agent sessions must be recognisable.
	Name string
	// Settings are set at the start of the session, over DataSettings.
	Settings map[string]string
	// Apply makes it a session that the gate lets write on a secondary:
	// session_replication_role is replica, so the application's triggers do not fire,
	// and PassGate is on.
	Apply bool
	// Fenced, with Apply, is for sessions in which code of users runs (package rights): what
	// they may write is said by a setting that this code cannot change (TakeSQL).
	Fenced bool
	// Unseen, with Apply, is for sessions that change schemas and in which no code of users runs: no
	// event trigger fires there where the server can do without (17 and later), not even one that is enabled as ALWAYS.
	Unseen bool
	// Ordinary makes it a session as an application's is, without DataSettings: to learn
	// which settings those have.
	Ordinary bool
}

// DataSettings are the settings under which values cross from one server to
// another without loss (src/backend/replication/libpqwalreceiver sets the same
// for the same reason), and those that keep an administrator's defaults from
// ending an agent's session. A session that carries rows has to add the
// client_encoding that both sides agreed on; without one it is UTF8, which is
// what Go's strings are.
func DataSettings() map[string]string {
	return map[string]string{
		"DateStyle":                           "ISO, YMD",
		"IntervalStyle":                       "postgres",
		"TimeZone":                            "UTC",
		"extra_float_digits":                  "3",
		"bytea_output":                        "hex",
		"lc_monetary":                         "C",
		"xmloption":                           "content",
		"array_nulls":                         "on",
		"search_path":                         "",
		"standard_conforming_strings":         "on",
		"quote_all_identifiers":               "off",
		"exit_on_error":                       "off", // errors are rolled back to a savepoint
		"transform_null_equals":               "off",
		"row_security":                        "off",
		"synchronize_seqscans":                "off",
		"default_transaction_read_only":       "off",
		"default_transaction_isolation":       "read committed",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
		// What an agent notes must not wait for standbys, the twin among them.
		"synchronous_commit": "local",
	}
}

// PlannerSettings are those by which queries on the catalogs take milliseconds rather than
// minutes, whatever a server, a database or a role sets for queries of its own. Every version
// has them.
func PlannerSettings() map[string]string {
	return map[string]string{
		"enable_bitmapscan":    "on",
		"enable_hashagg":       "on",
		"enable_hashjoin":      "on",
		"enable_indexonlyscan": "on",
		"enable_indexscan":     "on",
		"enable_material":      "on",
		"enable_mergejoin":     "on",
		"enable_nestloop":      "on",
		"enable_seqscan":       "on",
		"enable_sort":          "on",
		"enable_tidscan":       "on",
		"from_collapse_limit":  "8",
		"join_collapse_limit":  "8",
	}
}

// Connect opens a session. It waits no longer than the connect timeout.
func (d *DSN) Connect(ctx context.Context, s Session) (*pgx.Conn, error) {
	config := d.session(s)
	answered := noteAnswers(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if s.Fenced && SQLState(err) == "42704" { // before version 13 it has no such setting
		s.Fenced = false
		conn, err = pgx.ConnectConfig(ctx, d.session(s))
	}
	if err != nil && d.quiet(s) && SQLState(err) == "42501" { // it is no superuser any more
		quietLogins.Delete(d.login())
		conn, err = pgx.ConnectConfig(ctx, d.session(s))
	}
	if err != nil {
		return nil, d.notConnected(ctx, err, answered.Load(), "connect to ")
	}
	d.learnLogin(conn.PgConn())
	return conn, nil
}

// notConnected says why there is no session: in the guard's own words where it was that. answered is whether the
// server said something.
func (d *DSN) notConnected(ctx context.Context, err error, answered bool, op string) error {
	var guards *problem.Error
	if errors.As(err, &guards) {
		return guards
	}
	if answered && pgconn.Timeout(err) {
		if locked := d.notBegun(ctx, op); locked != nil {
			return locked
		}
	}
	if SQLState(err) == "55000" { // pg_database.datallowconn (postinit.c, CheckMyDatabase)
		return problem.Wrap(sanitised{err}, problem.Transient, "database_closed", "%s: the database lets nobody connect", op+d.String()).On(d.Database()).
			WithHint("where it is there to be used, as a superuser in another database: ALTER DATABASE %s ALLOW_CONNECTIONS true", sqlname.Quote(d.Database()))
	}
	return Classify(err, op+d.String())
}

// ConnectReplication opens a session that takes replication commands for the
// string's database (manual, "Streaming Replication Protocol").
func (d *DSN) ConnectReplication(ctx context.Context, s Session) (*pgconn.PgConn, error) {
	c := d.session(s)
	c.RuntimeParams["replication"] = "database"
	answered := noteAnswers(c)
	conn, err := pgconn.ConnectConfig(ctx, &c.Config)
	if err != nil && d.quiet(s) && SQLState(err) == "42501" {
		quietLogins.Delete(d.login())
		c = d.session(s)
		c.RuntimeParams["replication"] = "database"
		conn, err = pgconn.ConnectConfig(ctx, &c.Config)
	}
	if err != nil {
		return nil, d.notConnected(ctx, err, answered.Load(), "connect for replication to ")
	}
	if s, ok := conn.Conn().(*socket); ok {
		narrow(s.Conn)
	}
	return conn, nil
}

func (d *DSN) session(s Session) *pgx.ConnConfig {
	c := d.config.Copy()
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	if t := tracerOf(s.Settings); t != nil {
		c.Tracer = t
	}
	params := DataSettings()
	maps.Copy(params, PlannerSettings())
	if s.Ordinary {
		clear(params)
	}
	params["client_encoding"] = "UTF8"
	maps.Copy(params, s.Settings)
	params["application_name"] = "twinspan/" + s.Name
	if s.Apply {
		params["session_replication_role"] = "replica"
		params[PassGate] = "on"
	}
	if s.Fenced {
		params[passSetting] = noPass
	}
	quiet := d.quiet(s)
	if quiet {
		params["session_replication_role"] = "replica"
	}
	if c.RuntimeParams == nil {
		c.RuntimeParams = map[string]string{}
	}
	maps.Copy(c.RuntimeParams, params)
	c.AfterConnect = settle
	if quiet {
		c.AfterConnect = settleQuiet
	}
	if s.Unseen {
		c.AfterConnect = settleUnseen
	}
	if d.guard != nil {
		first := c.AfterConnect
		c.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			if err := first(ctx, conn); err != nil {
				return err
			}
			return d.guard(ctx, conn)
		}
	}
	last := c.AfterConnect
	c.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		own.opened(conn)
		return last(ctx, conn)
	}
	c.DialFunc = dialSocket(c.DialFunc)
	return c
}

// IsUnknownDatabase says whether err means that the database does not exist.
func IsUnknownDatabase(err error) bool { return SQLState(err) == "3D000" }

// SQLState returns the SQLSTATE that the server sent, or "".
func SQLState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Classify turns an error of pgx into a problem; op says what was being done,
// as a noun phrase or an infinitive. The problem carries the server's message
// but no detail, for details quote row values. nil stays nil; a problem stays
// what it is.
func Classify(err error, op string) error {
	if err == nil {
		return nil
	}
	var known *problem.Error
	if errors.As(err, &known) {
		return err
	}
	var e *pgconn.PgError
	if errors.As(err, &e) {
		kind, code := kindOf(e)
		p := problem.Wrap(&ServerError{State: e.Code, Message: withoutValues(e), Table: e.TableName, cause: e}, kind, code, "%s", op)
		p.Hint = hintOf(e)
		if e.TableName != "" {
			p.Subject = e.SchemaName + "." + e.TableName
		}
		return p
	}
	if errors.Is(err, context.Canceled) {
		return problem.Wrap(err, problem.Cancelled, "cancelled", "%s", op)
	}
	var scan pgx.ScanArgError
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, pgx.ErrTooManyRows) || errors.As(err, &scan) {
		return problem.Wrap(err, problem.Internal, "answer_unexpected", "%s", op)
	}
	// What is left is the network or the server's end: it may come back.
	return problem.Wrap(sanitised{err}, problem.Transient, "connection_lost", "%s", op)
}

// withoutValues returns the server's message. Those of class 22, Data Exception,
// quote the value that was refused, like 'invalid input syntax for type integer:
// "..."': what lies between the first and the last quotation mark is left out.
func withoutValues(e *pgconn.PgError) string {
	first, last := strings.Index(e.Message, `"`), strings.LastIndex(e.Message, `"`)
	if !strings.HasPrefix(e.Code, "22") || first == last {
		return e.Message
	}
	return e.Message[:first+1] + "..." + e.Message[last:]
}

// ServerError is an error that PostgreSQL reported, without its detail.
type ServerError struct {
	State   string // SQLSTATE
	Message string
	Table   string
	cause   error
}

func (e *ServerError) Error() string { return e.Message + " (SQLSTATE " + e.State + ")" }

// Unwrap gives pgconn's error to errors.As.
func (e *ServerError) Unwrap() error { return e.cause }

// sanitised is a connection error: pgx's own text names user and database, and
// never the password.
type sanitised struct{ error }

func (s sanitised) Unwrap() error { return s.error }

func kindOf(e *pgconn.PgError) (problem.Kind, string) {
	switch {
	case e.Code == "28P01" || e.Code == "28000":
		return problem.Unauthorised, "login_refused"
	case poolerRefuses(e):
		return problem.Invalid, "address_pooled"
	case e.Code == "3D000":
		return problem.NotFound, "database_missing"
	case e.Code == "42501":
		return problem.Unauthorised, "privilege_missing"
	case e.Code == "53100":
		return problem.Transient, "disk_full"
	case e.Code == "53300":
		return problem.Transient, "connections_used_up"
	case e.Code == "53400" && strings.Contains(e.Message, "slots are in use"):
		return problem.Resource, "slots_used_up"
	case e.Code == "55P03":
		return problem.Transient, "lock_not_available"
	case e.Code == "55006":
		return problem.Transient, "object_in_use"
	case e.Code == "57014":
		return problem.Transient, "statement_cancelled"
	case e.Code == "40001" || e.Code == "40P01":
		return problem.Transient, "serialization_failure"
	case e.Code == "XX000" && (strings.Contains(e.Message, "cache lookup failed for") || strings.Contains(e.Message, "tuple concurrently ")):
		// Somebody changed or dropped what the statement had just found in the catalogs, as
		// a publication of a table; such errors have no code of their own.
		return problem.Transient, "serialization_failure"
	case strings.HasPrefix(e.Code, "57P") || strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "53"):
		return problem.Transient, "server_unavailable"
	case strings.HasPrefix(e.Code, "58"):
		return problem.Transient, "server_system_error"
	}
	return problem.Internal, "server_error"
}

// poolerRefuses says whether PgBouncer, or one of its kind, answers in the place of a server:
// it knows only the settings that it can keep apart for its clients.
func poolerRefuses(e *pgconn.PgError) bool {
	return strings.HasPrefix(e.Message, "unsupported startup parameter")
}

var activeFor = regexp.MustCompile(`PID (\d+)`)

func hintOf(e *pgconn.PgError) string {
	if poolerRefuses(e) {
		return "a connection pooler listens there; let the connection string lead to the server itself"
	}
	switch e.Code {
	case "55006": // of slots and origins, in whatever language
		if pid := activeFor.FindStringSubmatch(e.Message); pid != nil {
			return "see who that is: SELECT usename, application_name, query_start FROM pg_stat_activity WHERE pid = " + pid[1] +
				"; where it is not an agent's, end it: SELECT pg_terminate_backend(" + pid[1] + ")"
		}
	case "28P01", "28000":
		return "check user, password and pg_hba.conf of the connection string given to init"
	case "53100":
		return "free space on the server; the agent tries again by itself"
	case "53300":
		return "raise max_connections, or end sessions that are not needed"
	}
	return e.Hint
}
