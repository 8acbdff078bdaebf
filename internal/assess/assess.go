// Package assess looks at a database and an instance for what would stop, slow or
// spoil a link, by reading the servers themselves.
package assess

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// The versions that a link supports.
const (
	OldestPrimary   = 10
	OldestSecondary = 14
	NewestTested    = 18
)

// Finding is one thing that a check found.
type Finding struct {
	Code     string           `json:"code"`
	Severity problem.Severity `json:"severity"`
	Object   string           `json:"object,omitempty"`
	Why      string           `json:"why"`
	Remedy   string           `json:"remedy,omitempty"`
}

// Source is what the secondary's side has to know of the primary database to
// judge whether it can take it, and to make its own.
type Source struct {
	Database   string      `json:"database"`
	Owner      string      `json:"owner"`
	Major      int         `json:"major"`
	SystemID   string      `json:"systemId"`
	Encoding   string      `json:"encoding"`
	Collate    string      `json:"collate"`
	CType      string      `json:"ctype"`
	Provider   string      `json:"provider"` // c libc, i icu, b builtin
	Locale     string      `json:"locale,omitempty"`
	Bytes      int64       `json:"bytes"`
	Extensions []Extension `json:"extensions,omitempty"`
}

// Extension is one that the primary database uses.
type Extension struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Describe reads what a database is.
func Describe(ctx context.Context, conn *pgx.Conn) (Source, error) {
	var s Source
	var version int
	err := conn.QueryRow(ctx, `SELECT d.datname, pg_get_userbyid(d.datdba), current_setting('server_version_num')::int,
		(SELECT system_identifier::text FROM pg_control_system()), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
		coalesce(to_jsonb(d)->>'datlocprovider', 'c'), coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''), pg_database_size(d.oid)
		FROM pg_database d WHERE d.datname = current_database()`).
		Scan(&s.Database, &s.Owner, &version, &s.SystemID, &s.Encoding, &s.Collate, &s.CType, &s.Provider, &s.Locale, &s.Bytes)
	if err != nil {
		return s, pg.Classify(err, "describe the database")
	}
	s.Major = version / 10000
	rows, err := conn.Query(ctx, `SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1`)
	if err != nil {
		return s, pg.Classify(err, "list extensions")
	}
	s.Extensions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Extension])
	return s, pg.Classify(err, "list extensions")
}

// Primary looks at the database that is to be the primary. conn is a session in it.
func Primary(ctx context.Context, conn *pgx.Conn, dumpMajor int) ([]Finding, error) {
	var f findings
	var version, slots, slotLimit, senders, senderLimit, objects, unlogged int
	var walLevel, user, keep string
	var super, recovering, template, secondary bool
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_user,
		(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), pg_is_in_recovery(),
		(SELECT datistemplate FROM pg_database WHERE datname = current_database()),
		(SELECT count(*) FROM pg_replication_slots)::int, current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_stat_replication)::int, current_setting('max_wal_senders')::int,
		(SELECT count(*) FROM (SELECT FROM pg_largeobject_metadata LIMIT 100000) x)::int,
		(SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u')::int,
		coalesce(current_setting('max_slot_wal_keep_size', true), ''),
		EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'twinspan_gate')`).
		Scan(&version, &walLevel, &user, &super, &recovering, &template, &slots, &slotLimit, &senders, &senderLimit, &objects, &unlogged, &keep, &secondary)
	if err != nil {
		return nil, pg.Classify(err, "look at the primary")
	}
	major := version / 10000
	f.blocksIf(major < OldestPrimary, "version_unsupported", "server", fmt.Sprintf("PostgreSQL %d cannot be the primary of a link", major),
		fmt.Sprintf("use version %d or newer", OldestPrimary))
	f.warnsIf(major > NewestTested, "version_untested", "server", fmt.Sprintf("PostgreSQL %d is newer than what Twinspan was tested with", major), "")
	f.blocksIf(recovering, "primary_in_recovery", "server", "the server is a standby: its log cannot be decoded into a new slot", "connect to its primary")
	f.blocksIf(walLevel != "logical", "wal_level_low", "wal_level", "wal_level is "+walLevel+"; changes can be read from the log only with logical",
		"ALTER SYSTEM SET wal_level = 'logical'; then restart the server")
	f.blocksIf(!super, "not_superuser", user, "the agent's role may not publish all tables and make event triggers",
		"ALTER ROLE "+sqlname.Quote(user)+" SUPERUSER; or give the agent a superuser's connection string")
	f.blocksIf(slotLimit-slots < 2, "slots_used_up", "max_replication_slots",
		fmt.Sprintf("%d of %d replication slots are taken; a link needs one, and a second while it is seeded", slots, slotLimit),
		fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; then restart the server; or drop slots that nobody uses", slotLimit+10))
	f.blocksIf(senderLimit-senders < 2, "senders_used_up", "max_wal_senders",
		fmt.Sprintf("%d of %d WAL senders are taken; a link needs one, and a second while it is seeded", senders, senderLimit),
		fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d; then restart the server", senderLimit+10))
	f.blocksIf(template, "database_is_template", "", "a template database cannot be linked", "ALTER DATABASE ... IS_TEMPLATE false")
	f.blocksIf(secondary, "database_is_secondary", "", "the database is already the secondary of a link", "link its primary instead")
	f.blocksIf(dumpMajor < major, "pg_dump_too_old", "pg_dump",
		fmt.Sprintf("the newest pg_dump found has version %d, the server has %d", dumpMajor, major),
		fmt.Sprintf("install the client programs of version %d on the agent's machine, or name their directory in TWINSPAN_PG_BIN", major))
	f.warnsIf(objects > 0, "large_objects_not_carried", "pg_largeobject", fmt.Sprintf("the database has %d large objects; they are not copied", objects),
		"accept it with --accept large_objects_not_carried, or move them into bytea columns")
	f.informsIf(unlogged > 0, "unlogged_tables", "", fmt.Sprintf("%d unlogged tables are created on the twin, their rows are not copied", unlogged), "ALTER TABLE ... SET LOGGED")
	f.informsIf(keep != "" && keep != "-1", "slot_wal_limited", "max_slot_wal_keep_size", "the server drops log that the twin still needs once it exceeds "+keep,
		"ALTER SYSTEM SET max_slot_wal_keep_size = -1, or make sure that it is enough for the longest interruption")
	return f, nil
}

// Target is the secondary's side of a check.
type Target struct {
	Source   Source
	Database string // on this side
}

// Secondary looks at the instance that is to hold the twin. server leads to the
// instance's maintenance database.
func Secondary(ctx context.Context, server *pg.DSN, t Target) ([]Finding, error) {
	conn, err := server.Connect(ctx, pg.Session{Name: "check"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var f findings
	var version, origins, originLimit int
	var user, system string
	var super, recovering, exists bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		pg_is_in_recovery(), (SELECT count(*) FROM pg_replication_origin)::int,
		coalesce(current_setting('max_active_replication_origins', true), current_setting('max_replication_slots'))::int,
		(SELECT system_identifier::text FROM pg_control_system()), EXISTS (SELECT FROM pg_database WHERE datname = $1)`, t.Database).
		Scan(&version, &user, &super, &recovering, &origins, &originLimit, &system, &exists)
	if err != nil {
		return nil, pg.Classify(err, "look at the secondary")
	}
	setting := "max_replication_slots"
	if version >= 180000 {
		setting = "max_active_replication_origins"
	}
	major := version / 10000
	f.blocksIf(major < OldestSecondary, "version_unsupported", "server", fmt.Sprintf("PostgreSQL %d cannot be the secondary of a link", major),
		fmt.Sprintf("use version %d or newer", OldestSecondary))
	f.warnsIf(major > NewestTested, "version_untested", "server", fmt.Sprintf("PostgreSQL %d is newer than what Twinspan was tested with", major), "")
	f.blocksIf(recovering, "secondary_in_recovery", "server", "the server is a standby and cannot be written to", "connect to its primary")
	f.blocksIf(!super, "not_superuser", user, "the agent's role may not set session_replication_role and replication origins",
		"ALTER ROLE "+sqlname.Quote(user)+" SUPERUSER; or give the agent a superuser's connection string")
	f.blocksIf(originLimit <= origins, "origins_used_up", setting, fmt.Sprintf("%d of %d replication origins are taken; a link needs one", origins, originLimit),
		fmt.Sprintf("ALTER SYSTEM SET %s = %d; then restart the server", setting, originLimit+10))
	if exists && system == t.Source.SystemID && t.Database == t.Source.Database {
		f.blocksIf(true, "same_database", t.Database, "both sides of the link would be the same database", "choose another name with --peer-database")
	} else if exists {
		empty, err := Empty(ctx, server.WithDatabase(t.Database))
		if err != nil {
			return nil, err
		}
		f.blocksIf(!empty, "target_not_empty", t.Database, "the database exists on the secondary and is not empty; it would be overwritten",
			"choose another name with --peer-database, or drop it there: DROP DATABASE ...")
	}
	missing, err := missingExtensions(ctx, conn, t.Source.Extensions)
	if err != nil {
		return nil, err
	}
	for _, name := range missing {
		f.blocksIf(true, "extension_missing", name, "the database uses the extension "+name+", which is not installed on the secondary's server",
			"install the package that contains it on the secondary's machine")
	}
	return f, nil
}

// emptySQL counts what a database holds that a new one does not. Objects of users
// have OIDs from 16384 (FirstNormalObjectId) on; the schema public may have been
// dropped and made again.
const emptySQL = `WITH own AS (
	SELECT oid FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
	   AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%')
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_type WHERE typnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_operator WHERE oprnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_collation WHERE collnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_conversion WHERE connamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_ts_config WHERE cfgnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_ts_dict WHERE dictnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM own JOIN pg_namespace n USING (oid) WHERE n.nspname <> 'public')
	+ (SELECT count(*) FROM pg_cast WHERE oid >= 16384)
	+ (SELECT count(*) FROM pg_foreign_data_wrapper) + (SELECT count(*) FROM pg_foreign_server)
	+ (SELECT count(*) FROM pg_default_acl)
	+ (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql')
	+ (SELECT count(*) FROM (SELECT FROM pg_largeobject_metadata LIMIT 1) x)
	+ (SELECT count(*) FROM pg_event_trigger) + (SELECT count(*) FROM pg_publication)`

// Empty says whether a database holds nothing that a user made.
func Empty(ctx context.Context, dsn *pg.DSN) (bool, error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: "check"})
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var things int
	err = conn.QueryRow(ctx, emptySQL).Scan(&things)
	return things == 0, pg.Classify(err, "look whether the database is empty")
}

func missingExtensions(ctx context.Context, conn *pgx.Conn, need []Extension) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT name FROM pg_available_extensions`)
	if err != nil {
		return nil, pg.Classify(err, "list available extensions")
	}
	have, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, pg.Classify(err, "list available extensions")
	}
	var missing []string
	for _, e := range need {
		if !slices.Contains(have, e.Name) {
			missing = append(missing, e.Name)
		}
	}
	return missing, nil
}

type findings []Finding

func (f *findings) add(is bool, severity problem.Severity, code, object, why, remedy string) {
	if is {
		*f = append(*f, Finding{Code: code, Severity: severity, Object: object, Why: why, Remedy: remedy})
	}
}

func (f *findings) blocksIf(is bool, code, object, why, remedy string) {
	f.add(is, problem.Blocks, code, object, why, remedy)
}

func (f *findings) warnsIf(is bool, code, object, why, remedy string) {
	f.add(is, problem.Warns, code, object, why, remedy)
}

func (f *findings) informsIf(is bool, code, object, why, remedy string) {
	f.add(is, problem.Informs, code, object, why, remedy)
}

// Verdict returns nil when nothing in the findings stops a link, given the codes
// of warnings that its creator accepts, and else one problem that names what does.
func Verdict(found []Finding, accepted []string) error {
	var stops []Finding
	for _, f := range found {
		if f.Severity == problem.Blocks || f.Severity == problem.Warns && !slices.Contains(accepted, f.Code) {
			stops = append(stops, f)
		}
	}
	if len(stops) == 0 {
		return nil
	}
	first := stops[0]
	p := problem.New(problem.Incompatible, first.Code, "%s", first.Why).On(first.Object)
	p.Hint = first.Remedy
	if first.Severity == problem.Warns {
		p.Hint = strings.TrimPrefix(p.Hint+"; accept it with --accept "+first.Code, "; ")
	}
	if len(stops) > 1 {
		others := make([]string, 0, len(stops)-1)
		for _, s := range stops[1:] {
			others = append(others, s.Code)
		}
		p.Text += fmt.Sprintf(" (and %d more: %s; see twinspan check)", len(others), strings.Join(others, ", "))
	}
	return p
}
