package schema

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Target builds the structure in the secondary's database. What is built is
// recorded in twinspan.seed_entry by the transaction that builds it, so that
// every method can be called again after any failure and builds nothing twice.
type Target struct {
	DSN  *pg.DSN // of the target database, which has the schema twinspan
	Link string  // the link's id
	Name string  // the link's name, for the names of sessions
	// Workers is how many indexes and constraints are built at once; 0 means as
	// many as this machine has processors.
	Workers  int
	Log      *slog.Logger
	Progress func(Progress) // may be nil; called from one goroutine at a time
	// Aside, when set, is a statement that keeps event triggers of the primary from firing at what agents do. It is
	// run in the transaction that makes them.
	Aside string
}

// Progress says how far a step is.
type Progress struct {
	Step  string // "schema", "identity", "indexes", "analyze"
	Done  int
	Total int
}

// kindRole is an entry that pg_dump does not make.
const kindRole = "ROLE"

// batchEntries and batchBytes bound a transaction of pre-data: each table that
// it makes holds several locks to its end, and the server's table of locks is
// small (max_locks_per_transaction).
const (
	batchEntries = 200
	batchBytes   = 1 << 20
)

// lockWait bounds how long building waits for a reader of the secondary. It ends
// in a problem of kind Transient.
const lockWait = "60s"

func (t *Target) workers() int {
	if t.Workers > 0 {
		return t.Workers
	}
	return runtime.NumCPU()
}

func (t *Target) progress(p Progress) {
	if t.Progress != nil {
		t.Progress(p)
	}
}

// connect opens a session that builds. Text goes in UTF-8, except where the
// database's encoding has no conversion to it. more are settings of ordinary sessions in
// the place of agents'.
func (t *Target) connect(ctx context.Context, more ...rights.Setting) (*pgx.Conn, error) {
	settings := map[string]string{
		"check_function_bodies": "off",
		"client_min_messages":   "error",
		"synchronous_commit":    "off",
		"lock_timeout":          lockWait,
		"client_encoding":       "UTF8",
	}
	for _, s := range more {
		for name := range pg.DataSettings() {
			if strings.EqualFold(name, s.Name) {
				settings[name] = s.Value
			}
		}
	}
	conn, err := t.DSN.Connect(ctx, pg.Session{Name: t.Name + "/schema", Apply: true, Settings: settings})
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `SELECT set_config('client_encoding', getdatabaseencoding(), false) WHERE getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL')`)
	if err == nil {
		// Sorting is what building is made of.
		_, err = conn.Exec(ctx, `SELECT set_config('maintenance_work_mem', '256MB', false)
			WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < 268435456`)
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "set up a session for the schema")
	}
	return conn, nil
}

// Prepare makes missing roles (NOLOGIN) and everything that the data needs. The
// structure is asked of fetch once and kept in the database. The roles that were
// made, by this call or an earlier one, are returned.
func (t *Target) Prepare(ctx context.Context, fetch func(ctx context.Context) (*Dump, error)) (created []string, err error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var have bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM twinspan.seed_entry WHERE link = $1::text::uuid)`, t.Link).Scan(&have); err != nil {
		return nil, pg.Classify(err, "look for the schema")
	}
	if !have {
		dump, err := fetch(ctx)
		if err != nil {
			return nil, err
		}
		if err := t.keep(ctx, conn, dump); err != nil {
			return nil, err
		}
	}
	if err := t.buildPreData(ctx, conn); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT name FROM twinspan.seed_entry WHERE link = $1::text::uuid AND kind = $2 ORDER BY name`, t.Link, kindRole)
	if err != nil {
		return nil, pg.Classify(err, "list created roles")
	}
	created, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return created, pg.Classify(err, "list created roles")
}

// keep stores the dump, and in the same transaction makes the roles, so that
// what was made is known whatever happens next.
func (t *Target) keep(ctx context.Context, conn *pgx.Conn, dump *Dump) error {
	if err := checkExtensions(ctx, conn, dump.Extensions); err != nil {
		return err
	}
	adapt, err := adapted(ctx, conn)
	if err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return pg.Classify(err, "begin to keep the schema")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	entries, err := createRoles(ctx, tx, dump.Roles)
	if err != nil {
		return err
	}
	roles := len(entries)
	entries = append(entries, dump.Entries...)
	rows := pgx.CopyFromSlice(len(entries), func(i int) ([]any, error) {
		e := entries[i]
		sql := strings.ReplaceAll(string(adapt(e)), "\x00", "")
		e.SQL = ""
		spec, err := json.Marshal(e)
		return []any{t.Link, i, string(e.Section), e.Kind, e.Schema, e.Name, string(spec), sql, i < roles}, err
	})
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"twinspan", "seed_entry"},
		[]string{"link", "number", "section", "kind", "schema_name", "name", "spec", "sql", "done"}, rows)
	if err != nil {
		return pg.Classify(err, "keep the schema")
	}
	if dump.DropPublic {
		if _, err := tx.Exec(ctx, `DROP SCHEMA IF EXISTS public`); err != nil {
			return pg.Classify(err, "drop the schema public, which the primary does not have")
		}
	}
	return pg.Classify(tx.Commit(ctx), "keep the schema")
}

// checkExtensions refuses a target on which an extension is not installed,
// before anything is made.
func checkExtensions(ctx context.Context, conn *pgx.Conn, wanted []Extension) error {
	names := make([]string, len(wanted))
	for i, e := range wanted {
		names[i] = e.Name
	}
	missing, err := MissingExtensions(ctx, conn, names)
	if err != nil || len(missing) == 0 {
		return err
	}
	return problem.New(problem.Incompatible, "extension_missing", "the secondary's server does not have %s, which the primary's database uses", strings.Join(missing, ", ")).
		On(missing[0]).WithHint("install the extension's package on the secondary's server, or drop the extension on the primary if nothing needs it")
}

// MissingExtensions lists, in order, those of some extensions that are not installed on a server's machine.
func MissingExtensions(ctx context.Context, conn *pgx.Conn, names []string) (missing []string, err error) {
	err = conn.QueryRow(ctx, `SELECT ARRAY(SELECT w FROM pg_catalog.unnest($1::text[]) AS w WHERE w NOT IN (SELECT name FROM pg_catalog.pg_available_extensions) ORDER BY 1)`, names).Scan(&missing)
	return missing, pg.Classify(err, "list extensions")
}

func createRoles(ctx context.Context, tx pgx.Tx, wanted []string) ([]Entry, error) {
	rows, err := tx.Query(ctx, `SELECT w FROM unnest($1::text[]) AS w WHERE w NOT IN (SELECT rolname FROM pg_catalog.pg_roles) ORDER BY 1`, wanted)
	if err != nil {
		return nil, pg.Classify(err, "list roles")
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, pg.Classify(err, "list roles")
	}
	entries := make([]Entry, len(missing))
	for i, role := range missing {
		sql := "CREATE ROLE " + sqlname.Quote(role) + " NOLOGIN"
		if _, err := tx.Exec(ctx, sql); err != nil {
			return nil, pg.Classify(err, "create the role "+role)
		}
		entries[i] = Entry{Section: PreData, Kind: kindRole, Name: role, SQL: Text(sql)}
	}
	return entries, nil
}

// stored is an entry as it lies in the database.
type stored struct {
	number int
	done   bool
	Entry
}

func (t *Target) load(ctx context.Context, conn *pgx.Conn, section Section) ([]stored, error) {
	rows, err := conn.Query(ctx, `SELECT number, done, spec, sql FROM twinspan.seed_entry WHERE link = $1::text::uuid AND section = $2 ORDER BY number`, t.Link, string(section))
	if err != nil {
		return nil, pg.Classify(err, "read the schema's entries")
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s stored, err error) {
		var spec, sql string
		if err := row.Scan(&s.number, &s.done, &spec, &sql); err != nil {
			return s, err
		}
		err = json.Unmarshal([]byte(spec), &s.Entry)
		s.SQL = Text(sql)
		return s, err
	})
	return entries, pg.Classify(err, "read the schema's entries")
}

func (t *Target) buildPreData(ctx context.Context, conn *pgx.Conn) error {
	entries, err := t.load(ctx, conn, PreData)
	if err != nil {
		return err
	}
	total := len(entries)
	entries = slices.DeleteFunc(entries, func(s stored) bool { return s.done })
	for len(entries) > 0 {
		t.progress(Progress{Step: "schema", Done: total - len(entries), Total: total})
		if entries[0].Kind == extension {
			if err := t.buildExtension(ctx, entries[0]); err != nil {
				return err
			}
			entries = entries[1:]
			continue
		}
		n, bytes := 0, 0
		for n < len(entries) && n < batchEntries && bytes < batchBytes && entries[n].Kind != extension {
			bytes += len(entries[n].SQL)
			n++
			if e := entries[n-1]; e.Kind == kindDomain || e.Kind == kindType && strings.Contains(string(e.SQL), " AS RANGE (") {
				break // what comes next may have literals, and reading them runs its code (rights.Hushed)
			}
		}
		if err := t.build(ctx, conn, entries[:n]); err != nil {
			if problem.Retry(err) || problem.KindOf(err) == problem.Cancelled {
				return err
			}
			// One by one, to learn which of them it is.
			for i := range n {
				if err := t.buildOne(ctx, conn, entries[i]); err != nil {
					return err
				}
			}
		}
		entries = entries[n:]
	}
	t.progress(Progress{Step: "schema", Done: total, Total: total})
	return nil
}

// extension is pg_dump's word for the kind of an entry.
const extension = "EXTENSION"

// buildExtension builds an extension in a session as users have them: its script may ask
// what the session began with (postgis_topology puts its schema behind the search_path).
func (t *Target) buildExtension(ctx context.Context, e stored) error {
	ordinary, err := t.ordinary(ctx)
	if err != nil {
		return err
	}
	conn, err := t.connect(ctx, ordinary...)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return t.buildOne(ctx, conn, e)
}

// build builds entries and marks them done, in one transaction. The marks are
// set first: whoever builds the same at the same time waits, and then finds it
// done. The error names the first entry.
func (t *Target) build(ctx context.Context, conn *pgx.Conn, entries []stored) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return pg.Classify(err, "begin to build the schema")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	numbers := make([]int, len(entries))
	var sql strings.Builder
	for i, e := range entries {
		numbers[i] = e.number
		sql.WriteString(string(e.SQL))
		// The end of a line ends a comment, the semicolon a statement.
		sql.WriteString("\n;\n")
		if e.Kind == kindEvent {
			sql.WriteString(t.Aside + ";\n")
		}
	}
	tag, err := tx.Exec(ctx, `UPDATE twinspan.seed_entry SET done = true WHERE link = $1::text::uuid AND number = ANY ($2) AND NOT done`, t.Link, numbers)
	if err != nil {
		return pg.Classify(err, "mark what is built")
	}
	if int(tag.RowsAffected()) != len(entries) {
		return problem.New(problem.Transient, "already_built", "another session built a part of the schema at the same time")
	}
	if err := conn.PgConn().Exec(ctx, rights.Hushed(sql.String())).Close(); err != nil {
		return entryError(err, entries[0].Entry)
	}
	return pg.Classify(tx.Commit(ctx), "commit a part of the schema")
}

// entryError says what could not be built.
func entryError(err error, e Entry) error {
	what := strings.ToLower(e.Kind) + " " + e.Name
	if e.Schema != "" {
		what = strings.ToLower(e.Kind) + " " + e.Name + " in schema " + e.Schema
	}
	p := problem.As(pg.Classify(err, "build "+what))
	if e.Kind == kindRefresh && pg.SQLState(err) == "42501" {
		view := sqlname.Table{Schema: e.Schema, Name: e.Name}
		return problem.Wrap(p, problem.Transient, "right_missing", "filling %s waits: its query runs with the rights of its owner, who lacks one on the secondary", view).
			On(view.String()).WithHint(`rights on tables are the primary's, so its owner there is a superuser or a member of a role, and less here: on the secondary, GRANT pg_read_all_data, or that role, to the owner (psql: \d+ %s). The link goes on by itself`, view.SQL())
	}
	if p.Kind != problem.Internal {
		return p
	}
	kind, code, hint := problem.Incompatible, "schema_entry_failed", "make it possible on the secondary's server, or change or drop it on the primary; then delete the link and create it again"
	if strings.HasPrefix(pg.SQLState(err), "23") {
		kind, code, hint = problem.Diverged, "schema_entry_violated", "the copied rows violate it; if they do so on the primary too (a corrupt index there, another collation here), repair them there; then delete the link and create it again"
	}
	if p.Subject == "" {
		p.Subject = strings.TrimPrefix(e.Schema+"."+e.Name, ".")
	}
	return &problem.Error{Kind: kind, Code: code, Subject: p.Subject, Text: p.Text, Hint: hint, Err: p.Err}
}
