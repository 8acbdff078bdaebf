package assess

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Target is the secondary's side of a check.
type Target struct {
	Source   Source
	Needs    Needs
	Database string // on this side
	// Storage is what the instance may take, where that is bounded by more than its disk; nil where it is not.
	Storage *Storage
}

// Storage bounds what an instance takes on disk.
type Storage struct{ Limit, Free int64 }

// Secondary looks at the instance that is to hold the twin. server leads to the
// instance's maintenance database. What it does on the server ends with it.
func Secondary(ctx context.Context, server *pg.DSN, t Target) ([]Finding, error) {
	f, err := judgeAddress(ctx, server)
	if err != nil {
		return nil, err
	}
	conn, err := server.Connect(ctx, pg.Session{Name: "check", Settings: map[string]string{"lock_timeout": "2s"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	l := secondaryLook{Target: t, server: server, conn: conn, found: f}
	for _, step := range []func(context.Context) error{
		l.judgeServer, l.judgeDatabase, l.judgeExtensions, l.judgeSpace, l.judgeEncryption, l.exercise, l.judgeCollations, l.judgeSettings, l.judgeValues, l.judgeLabels, l.judgeRoles, l.judgeTakeover,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return shorten(l.found), nil
}

// secondaryLook is one look at the secondary's side.
type secondaryLook struct {
	Target
	server *pg.DSN
	conn   *pgx.Conn
	found  findings

	version int
	plain   bool // nothing can be tried here: a standby, or not a superuser
	exists  bool // the database does
}

func (l *secondaryLook) judgeServer(ctx context.Context) error {
	f := &l.found
	var origins, originLimit int
	var user, fsync, system string
	var super, recovering bool
	err := l.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		pg_is_in_recovery(), (SELECT count(*) FROM pg_replication_origin)::int,
		coalesce(current_setting('max_active_replication_origins', true), current_setting('max_replication_slots'))::int,
		(SELECT system_identifier::text FROM pg_control_system()), EXISTS (SELECT FROM pg_database WHERE datname = $1), current_setting('fsync')`, l.Database).
		Scan(&l.version, &user, &super, &recovering, &origins, &originLimit, &system, &l.exists, &fsync)
	if err != nil {
		return pg.Classify(err, "look at the secondary")
	}
	l.plain = recovering || !super
	setting := "max_replication_slots"
	if l.version >= 180000 {
		setting = "max_active_replication_origins"
	}
	*f = append(*f, judgeVersion(l.version, true)...)
	f.informsIf(l.Source.Major > l.version/10000, "version_below_primary", "server",
		fmt.Sprintf("the secondary has PostgreSQL %d, the primary %d: what is new in between cannot be carried", l.version/10000, l.Source.Major), "")
	f.blocksIf(recovering, "secondary_in_recovery", "server", "the server is a standby and cannot be written to", "connect to its primary")
	f.blocksIf(!super, "not_superuser", user, "the agent's role may not set session_replication_role and replication origins", superuserRemedy(user))
	f.blocksIf(originLimit <= origins, "origins_used_up", setting, fmt.Sprintf("%d of %d replication origins are taken; a link needs one", origins, originLimit),
		fmt.Sprintf("ALTER SYSTEM SET %s = %d; then restart the server", setting, originLimit+10))
	f.blocksIf(l.exists && system == l.Source.SystemID && l.Database == l.Source.Database, "same_database", l.Database,
		"both sides of the link would be the same database", "choose another name with --peer-database")
	judgeDurability(f, fsync)
	return judgeConnections(ctx, l.conn, f)
}

// judgeDatabase looks at the database of that name, if there is one.
func (l *secondaryLook) judgeDatabase(ctx context.Context) error {
	f := &l.found
	f.blocksIf(reserved(l.Database), "database_name_reserved", l.Database, "new databases are made from this one", "choose another name with --peer-database")
	f.warnsIf(l.Database == maintenance && l.Source.Database != maintenance, "maintenance_database", l.Database,
		"the database postgres of the secondary's instance would be read-only: CREATE DATABASE, CREATE ROLE and whatever else tools do in it would be refused", "choose another name with --peer-database")
	if !l.exists || reserved(l.Database) || f.has("same_database") {
		return nil
	}
	var allows bool
	var encoding, collate, ctype, provider, locale string
	err := l.conn.QueryRow(ctx, `SELECT datallowconn, pg_encoding_to_char(encoding), datcollate, datctype, coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
		coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', '') FROM pg_database d WHERE datname = $1`, l.Database).
		Scan(&allows, &encoding, &collate, &ctype, &provider, &locale)
	if err != nil {
		return pg.Classify(err, "look at the database")
	}
	if !allows {
		f.blocksIf(true, "target_closed", l.Database, "the database exists on the secondary and accepts no sessions", "ALTER DATABASE "+sqlname.Quote(l.Database)+" ALLOW_CONNECTIONS true")
		return nil
	}
	empty, linked, err := contents(ctx, l.server.WithDatabase(l.Database))
	if err != nil {
		return err
	}
	f.blocksIf(linked, "target_not_empty", l.Database, "the database exists on the secondary and is a side of a link there",
		"twinspan link list shows the links; for another twin choose another name with --peer-database")
	f.blocksIf(!empty && !linked, "target_not_empty", l.Database, "the database exists on the secondary and is not empty; it would be overwritten",
		"choose another name with --peer-database, or there: DROP DATABASE "+sqlname.Quote(l.Database))
	recreate := "DROP DATABASE " + sqlname.Quote(l.Database) + " there: the link then makes one like the primary's"
	// UTF8 holds every character, and takes what a SQL_ASCII database holds only if it is valid.
	narrow := encoding != l.Source.Encoding && (encoding != "UTF8" || l.Source.Encoding == "SQL_ASCII")
	f.warnsIf(l.Source.Encoding != "" && narrow, "encoding_differs", l.Database,
		fmt.Sprintf("the database exists with encoding %s, the primary's has %s: text that cannot be converted stops the link", encoding, l.Source.Encoding), recreate)
	differs := provider != l.Source.Provider || locale != l.Source.Locale || collate != l.Source.Collate || ctype != l.Source.CType
	f.informsIf(l.Source.Provider != "" && differs, "locale_differs", l.Database,
		fmt.Sprintf("the database exists with locale %s, the primary's has %s: text sorts otherwise there; indexes are built anew and are right", collate, l.Source.Collate), recreate)
	return nil
}

func (l *secondaryLook) judgeExtensions(ctx context.Context) error {
	rows, err := l.conn.Query(ctx, `SELECT name::text, default_version FROM pg_available_extensions`)
	if err != nil {
		return pg.Classify(err, "list available extensions")
	}
	have := map[string]string{}
	var name, version string
	if _, err := pgx.ForEachRow(rows, []any{&name, &version}, func() error { have[name] = version; return nil }); err != nil {
		return pg.Classify(err, "list available extensions")
	}
	for _, e := range l.Source.Extensions {
		version, ok := have[e.Name]
		l.found.blocksIf(!ok, "extension_missing", e.Name, "the database uses the extension "+e.Name+", which is not installed on the secondary's server",
			"install the package that contains it on the secondary's machine; or on the primary: DROP EXTENSION "+sqlname.Quote(e.Name))
		if !ok || version == e.Version {
			continue
		}
		text := fmt.Sprintf("the primary has version %s of the extension, the secondary would get %s", e.Version, version)
		if older(version, e.Version) {
			l.found.warnsIf(true, "extension_older", e.Name, text+": what is new in between is missing there", "install the newer package on the secondary's machine")
		} else {
			l.found.informsIf(true, "extension_newer", e.Name, text, "on the primary, once its package is as new: ALTER EXTENSION "+sqlname.Quote(e.Name)+" UPDATE")
		}
	}
	return nil
}

// older compares versions of extensions by their numbers, as far as they have any.
func older(a, b string) bool {
	x, y := strings.FieldsFunc(a, notDigit), strings.FieldsFunc(b, notDigit)
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m < n
		}
	}
	return len(x) < len(y)
}

func notDigit(r rune) bool { return r < '0' || r > '9' }

// judgeSpace compares the primary's size with what is free here. A copy has no
// dead rows; but while indexes are built, sorting takes space, and so does the log.
func (l *secondaryLook) judgeSpace(ctx context.Context) error {
	free, _, err := freeSpace(ctx, l.conn, l.server)
	if err != nil {
		return err
	}
	l.found = append(l.found, storageFor(l.Source.Bytes, l.Storage)...)
	if !l.found.has("storage_exceeded") {
		l.found = append(l.found, spaceFor(l.Source.Bytes, free)...)
	}
	return nil
}

// judgeEncryption compares how data at rest is encrypted on both sides, where that is known.
func (l *secondaryLook) judgeEncryption(ctx context.Context) error {
	here := ""
	e, known, err := encryptionOf(ctx, l.conn, l.server)
	if err != nil {
		return err
	}
	if known {
		here = e.Kind
	}
	l.found = append(l.found, judgeEncryption(l.Source.Encryption, here)...)
	return nil
}

// judgeEncryption takes kinds of encryption (package instance); "" where a side's agent cannot look at it.
func judgeEncryption(primary, secondary string) []Finding {
	var f findings
	const remedy = "encrypt the file system of the secondary's data directory; or see that its disk, or the volume of its cloud, encrypts, and accept this"
	switch {
	case primary == "" || primary == instance.EncryptionUnknown || primary == secondary:
	case secondary == "":
		f.informsIf(true, "encryption_unknown", "data_directory", "the primary's data is encrypted at rest ("+primary+"); it is not known whether the secondary's is, for its server is not on its agent's machine", "")
	case secondary == instance.EncryptionUnknown:
		f.warnsIf(true, "encryption_differs", "data_directory", "the primary's data is encrypted at rest ("+primary+"); the secondary's machine does not encrypt its own, as far as can be seen there", remedy)
	default:
		f.informsIf(true, "encryption_differs", "data_directory", "the primary's data is encrypted at rest by "+primary+", the secondary's by "+secondary, "")
	}
	return f
}

// storageFor compares the size of a database with what is left of an instance's storage.
func storageFor(bytes int64, s *Storage) []Finding {
	var f findings
	if s == nil {
		return nil
	}
	text := fmt.Sprintf("the database has %s, the secondary's instance has %s left of its storage of %s", size(bytes), size(s.Free), size(s.Limit))
	const remedy = "give the secondary's instance more: twinspan instance set --storage there"
	switch {
	case s.Free < bytes:
		f.blocksIf(true, "storage_exceeded", "storage", text, remedy)
	case s.Free < bytes+bytes/2+spaceMargin:
		f.warnsIf(true, "storage_tight", "storage", text+": the log and the building of indexes may need more", remedy)
	}
	return f
}

// spaceMargin is what is wanted beside the size itself: some log and sorting.
const spaceMargin = 64 << 20

func spaceFor(bytes, free int64) []Finding {
	var f findings
	const where = "data_directory"
	text := fmt.Sprintf("the database has %s, the secondary's disk %s free", size(bytes), size(free))
	switch {
	case free == Unknown:
		f.informsIf(true, "space_unknown", where, fmt.Sprintf("the secondary's server is not on its agent's machine, so it is not known whether there is room for %s", size(bytes)), "")
	case free < bytes:
		f.blocksIf(true, "space_short", where, text, "make room on the secondary's disk")
	case free < bytes+bytes/2+spaceMargin:
		f.warnsIf(true, "space_tight", where, text+": the log and the building of indexes may need more", "make room on the secondary's disk")
	}
	return f
}

// Room refuses a database that is larger than what is free on the file system of a server's
// data directory (space_short), or than what is left of its instance's storage (storage_exceeded), with both sizes. What this process cannot see, a server on
// another machine, it lets be. Tablespaces are not looked at: what is copied goes there.
func Room(ctx context.Context, conn *pgx.Conn, server *pg.DSN, storage *Storage, bytes int64) error {
	if err := storage.Room(bytes); err != nil {
		return err
	}
	free, _, err := freeSpace(ctx, conn, server)
	if err != nil || free == Unknown || bytes <= free {
		return err
	}
	return problem.New(problem.Resource, "space_short", "the database has %s, and where the server keeps its data %s are free", size(bytes), size(free)).On("data_directory").
		WithHint("make room there, or choose another instance")
}

// Room refuses what is larger than what is left of the storage (storage_exceeded). Where there is none to bound it, everything fits.
func (s *Storage) Room(bytes int64) error {
	if s == nil || bytes <= s.Free {
		return nil
	}
	return problem.New(problem.Resource, "storage_exceeded", "the database has %s, the instance has %s left of its storage of %s", size(bytes), size(s.Free), size(s.Limit)).On("storage").
		WithHint("give the instance more: twinspan instance set --storage; then try again")
}

// exercise does what a link will do on the secondary, and undoes it.
func (l *secondaryLook) exercise(ctx context.Context) error {
	if l.plain || l.found.has("origins_used_up") {
		return nil
	}
	err := rolledBack(ctx, l.conn,
		`SET LOCAL session_replication_role = replica`,
		`SELECT pg_replication_origin_create('twinspan_check_' || pg_backend_pid())`,
		`CREATE FUNCTION pg_temp.twinspan_check() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
		`CREATE EVENT TRIGGER twinspan_check ON ddl_command_start EXECUTE PROCEDURE pg_temp.twinspan_check()`)
	refused, err := refusal(err)
	l.found.blocksIf(refused != "", "applying_refused", l.server.User(), "the server refuses what applying changes needs: "+refused,
		superuserRemedy(l.server.User()))
	return err
}

// judgeSettings tries the settings of the primary's database in this server.
func (l *secondaryLook) judgeSettings(ctx context.Context) error {
	if l.plain {
		return nil
	}
	for _, s := range l.Needs.Settings {
		sql := `ALTER DATABASE ` + sqlname.Quote(l.conn.Config().Database) + ` SET ` + pg.Assignment(s.Name, s.Value)
		refused, err := refusal(rolledBack(ctx, l.conn, sql))
		if err != nil {
			return err
		}
		l.found.warnsIf(refused != "", "setting_not_carried", s.Name, "the secondary's server does not take this setting of the database: "+refused,
			"on the primary: ALTER DATABASE "+sqlname.Quote(l.Source.Database)+" RESET "+s.Name+"; or accept that the twin does without it")
	}
	return nil
}

// judgeValues names the columns that may get values which this server does not know.
func (l *secondaryLook) judgeValues(context.Context) error {
	if len(pg.WithNewValues(l.version/10000, l.Source.Major)) == 0 {
		return nil
	}
	for _, column := range l.Needs.Newer {
		l.found.add(problem.Informs, "value_too_new", column, fmt.Sprintf("the column holds intervals: version %d of the secondary does not know infinite ones, and one that is written on the primary stops the link", l.version/10000),
			"write none there: ALTER TABLE ... ADD CHECK (isfinite(...)); or have the secondary on version 17 or newer")
	}
	return nil
}

// judgeLabels tries the providers of the primary's security labels. Where the twin's
// database is there, its settings may be what loads them.
func (l *secondaryLook) judgeLabels(ctx context.Context) error {
	if l.plain || len(l.Needs.Labels) == 0 {
		return nil
	}
	conn := l.conn
	if l.exists && !l.found.has("target_closed") {
		var err error
		if conn, err = l.server.WithDatabase(l.Database).Connect(ctx, pg.Session{Name: "check"}); err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
	}
	for _, provider := range l.Needs.Labels {
		// A provider that is there may refuse as it likes; only one that is not is "not
		// loaded", an invalid parameter (seclabel.c, ExecSecLabelStmt).
		err := rolledBack(ctx, conn, `CREATE TEMP TABLE twinspan_check ()`, `SECURITY LABEL FOR `+sqlname.Quote(provider)+` ON TABLE pg_temp.twinspan_check IS NULL`)
		missing := pg.SQLState(err) == "22023"
		if _, err := refusal(err); err != nil {
			return err
		}
		l.found.blocksIf(missing, "label_provider_missing", provider, "the database has security labels of the provider "+provider+", which the secondary's server has not loaded",
			"install the provider on the secondary's machine and load it in all its databases, as on the primary: ALTER SYSTEM SET session_preload_libraries = ...; SELECT pg_reload_conf()")
	}
	return nil
}
