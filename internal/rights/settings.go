package rights

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/pg"
)

// kept are settings of an agent's session that stay what they are where code of a user
// runs: they say how values are read that are written as literals there, or what may
// become of the session.
var kept = []string{
	"array_nulls", "xmloption", "exit_on_error", "synchronous_commit", "synchronize_seqscans", "client_encoding", "application_name",
	"default_transaction_read_only", "default_transaction_isolation", "default_transaction_deferrable",
	"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout",
}

// ordinarySQL lists the settings of the session that it is run in; custom ones are not
// among them (guc_funcs.c, show_all_settings).
const ordinarySQL = `SELECT name, setting, boot_val, source FROM pg_catalog.pg_settings WHERE context = 'user'`

// databaseSQL lists what ALTER DATABASE SET and ALTER ROLE ALL SET say, the former last.
const databaseSQL = `SELECT s FROM pg_catalog.pg_db_role_setting r, unnest(r.setconfig) s
 WHERE r.setrole = 0 AND r.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())) ORDER BY r.setdatabase`

// SignSQL is a text that changes when what Ordinary reads from the catalogs does.
const SignSQL = `SELECT pg_catalog.md5(pg_catalog.string_agg(r.setconfig::pg_catalog.text, ' ' ORDER BY r.setdatabase)) FROM pg_catalog.pg_db_role_setting r
 WHERE r.setrole = 0 AND r.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))`

// Ordinary returns the settings of an ordinary session of a database that those of
// agents' sessions are not: what agents set for themselves, and what the database sets.
// Settings of roles are not ordinary, nor are those of the agent's connection string. The session to look at it has the given name.
func Ordinary(ctx context.Context, dsn *pg.DSN, name string) ([]Setting, error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: name + "/settings", Ordinary: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, databaseSQL)
	if err != nil {
		return nil, pg.Classify(err, "read the settings of the database")
	}
	values := map[string]string{} // by name in lower case
	said := map[string]bool{}     // by the database, or for all roles
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, pg.Classify(err, "read the settings of the database")
		}
		name, value, _ := strings.Cut(line, "=")
		values[strings.ToLower(name)], said[strings.ToLower(name)] = value, true
	}
	if rows.Err() != nil {
		return nil, pg.Classify(rows.Err(), "read the settings of the database")
	}
	ours := map[string]bool{}
	for name := range pg.DataSettings() {
		ours[strings.ToLower(name)] = true
	}
	known, err := conn.Query(ctx, ordinarySQL)
	if err != nil {
		return nil, pg.Classify(err, "read the settings of an ordinary session")
	}
	usable := map[string]bool{}
	for known.Next() {
		var name, source string
		var setting, boot *string
		if err := known.Scan(&name, &setting, &boot, &source); err != nil {
			return nil, pg.Classify(err, "read the settings of an ordinary session")
		}
		low := strings.ToLower(name)
		usable[low] = true
		ofRole := source == "user" || source == "database user"
		ofAgent := ofRole || source == "client" || source == "session" // the last two from its connection string
		switch {
		case said[low] && ofAgent:
			// What the database says is hidden by what is set for the agent alone.
		case (ofRole || ofAgent && ours[low]) && boot != nil:
			values[low] = *boot
		case setting != nil && (ours[low] || said[low]):
			values[low] = *setting
		}
	}
	if known.Err() != nil {
		return nil, pg.Classify(known.Err(), "read the settings of an ordinary session")
	}
	var list []Setting
	for _, name := range slices.Sorted(maps.Keys(values)) {
		// What is no user's to set is in force in every session of the database.
		if !slices.Contains(kept, name) && (usable[name] || strings.Contains(name, ".")) && !strings.HasPrefix(name, "twinspan.") {
			list = append(list, Setting{Name: name, Value: values[name]})
		}
	}
	return list, nil
}

// Without is the settings but the named ones.
func Without(settings []Setting, names ...string) []Setting {
	return slices.DeleteFunc(slices.Clone(settings), func(s Setting) bool { return slices.Contains(names, s.Name) })
}
