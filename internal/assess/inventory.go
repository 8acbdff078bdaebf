package assess

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Inventory is what a side has that neither PostgreSQL nor a link carries. It holds no
// secret: no connection string, no option's value, no password, no command of a job.
type Inventory struct {
	Subscriptions []Thing `json:"subscriptions,omitempty"`
	Publications  []Thing `json:"publications,omitempty"`
	LogicalSlots  []Thing `json:"logicalSlots,omitempty"`
	PhysicalSlots []Thing `json:"physicalSlots,omitempty"`
	Jobs          []Thing `json:"jobs,omitempty"`
	Servers       []Thing `json:"servers,omitempty"`
	Mappings      []Thing `json:"mappings,omitempty"`
	Roles         []Thing `json:"roles,omitempty"`
	Prepared      []Thing `json:"prepared,omitempty"`
	// Settings are of the server: those whose value can be no secret. A value that is a
	// default has no detail.
	Settings []Thing `json:"settings,omitempty"`
	// DatabaseSettings are of the database, and of roles in it.
	DatabaseSettings []Thing `json:"databaseSettings,omitempty"`
	// Scheduler says whether the server runs pg_cron.
	Scheduler bool `json:"scheduler,omitempty"`
}

// mostThings bounds each part of an inventory.
const mostThings = "1000"

// Thing is one object of an inventory.
type Thing struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`  // what is compared beside the name
	Detail string `json:"detail,omitempty"` // for people
}

// plainStrings are settings whose values are texts and no secrets.
const plainStrings = `'shared_preload_libraries', 'session_preload_libraries', 'local_preload_libraries', 'TimeZone', 'timezone_abbreviations', 'DateStyle', 'search_path',
	'default_text_search_config', 'default_tablespace', 'temp_tablespaces', 'default_table_access_method', 'synchronous_standby_names', 'wal_consistency_checking', 'cron.database_name'`

// ofServer are settings of a server that may matter to those who use it, and no others.
const ofServer = `(s.vartype IN ('bool', 'integer', 'real', 'enum') OR s.name IN (` + plainStrings + `))
	AND s.context <> 'internal' AND s.category NOT LIKE 'Reporting and Logging%' AND s.category NOT LIKE 'Developer%' AND s.category NOT LIKE 'Preset%'
	AND s.category NOT LIKE '%/ SSL' AND s.name NOT LIKE 'debug\_%' AND s.name NOT LIKE 'transaction\_%'
	AND s.name NOT IN ('port', 'unix_socket_permissions', 'data_directory_mode', 'bonjour', 'in_hot_standby', 'hot_standby')`

// inventoryParts read an inventory's parts from catalogs alone: name, value, detail.
var inventoryParts = []struct {
	what, sql string
	into      func(*Inventory) *[]Thing
}{
	{"subscriptions", `SELECT subname::text, '', pg_catalog.format('of %s%s', pg_catalog.array_to_string(subpublications, ', '), CASE WHEN subenabled THEN '' ELSE ', disabled' END)
		FROM pg_catalog.pg_subscription WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())`,
		func(i *Inventory) *[]Thing { return &i.Subscriptions }},
	{"publications", `SELECT pubname::text, '', '' FROM pg_catalog.pg_publication WHERE pubname NOT LIKE 'twinspan\_%'`,
		func(i *Inventory) *[]Thing { return &i.Publications }},
	{"logical slots", `SELECT slot_name::text, plugin::text, CASE WHEN active THEN 'in use' ELSE 'not in use' END FROM pg_catalog.pg_replication_slots
		WHERE slot_type = 'logical' AND database = pg_catalog.current_database() AND NOT temporary AND slot_name NOT LIKE 'twinspan\_%'`,
		func(i *Inventory) *[]Thing { return &i.LogicalSlots }},
	{"physical slots", `SELECT slot_name::text, '', CASE WHEN active THEN 'in use' ELSE 'not in use' END FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary`,
		func(i *Inventory) *[]Thing { return &i.PhysicalSlots }},
	{"foreign servers", `SELECT s.srvname::text, '', w.fdwname::text FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw`,
		func(i *Inventory) *[]Thing { return &i.Servers }},
	{"user mappings", `SELECT pg_catalog.format('%s for %s', srvname, usename), '', '' FROM pg_catalog.pg_user_mappings`,
		func(i *Inventory) *[]Thing { return &i.Mappings }},
	{"prepared transactions", `SELECT gid, '', pg_catalog.format('of role %s', owner) FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()`,
		func(i *Inventory) *[]Thing { return &i.Prepared }},
	{"settings of the server", `SELECT s.name, s.setting || CASE WHEN s.unit IS NULL THEN '' ELSE ' x ' || s.unit END,
		CASE WHEN s.source IN ('default', 'dynamic default') OR s.setting = s.boot_val THEN '' ELSE 'changed' END FROM pg_catalog.pg_settings s
		WHERE s.source IN ('default', 'dynamic default', 'environment variable', 'configuration file', 'command line', 'global', 'override') AND ` + ofServer,
		func(i *Inventory) *[]Thing { return &i.Settings }},
	// A value is compared where it can be no secret.
	{"settings of the database", `SELECT pg_catalog.split_part(c, '=', 1) || CASE WHEN r.rolname IS NULL THEN '' ELSE pg_catalog.format(' of role %s', r.rolname) END,
		CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) = pg_catalog.lower(pg_catalog.split_part(c, '=', 1))
			AND (s.vartype IN ('bool', 'integer', 'real', 'enum') OR s.name IN (` + plainStrings + `))) THEN CASE WHEN pg_catalog.octet_length(c) > 2000 THEN pg_catalog.md5(c) ELSE pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) END ELSE '' END, ''
		FROM pg_catalog.pg_db_role_setting d LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.setrole CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) c
		WHERE d.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
		AND pg_catalog.split_part(c, '=', 1) NOT IN ('default_transaction_read_only', 'role', 'session_authorization', 'session_replication_role') AND c NOT LIKE 'twinspan.%'`,
		func(i *Inventory) *[]Thing { return &i.DatabaseSettings }},
}

// ReadInventory reads the inventory of the database of a session, without its jobs.
func ReadInventory(ctx context.Context, conn *pgx.Conn) (Inventory, error) {
	var out Inventory
	for _, part := range inventoryParts {
		list, err := things(ctx, conn, part.what, part.sql)
		if err != nil {
			return out, err
		}
		*part.into(&out) = list
	}
	roles, err := pg.NeededRoles(ctx, conn)
	if err != nil {
		return out, err
	}
	known := true
	if err := pg.ReadPasswords(ctx, conn, roles, false); pg.SQLState(err) == "42501" { // insufficient_privilege
		known = false
	} else if err != nil {
		return out, err
	}
	for _, r := range roles {
		if r.Login {
			t := Thing{Name: r.Name}
			if known && r.Password {
				t.Value = "password"
			}
			out.Roles = append(out.Roles, t)
		}
	}
	for _, s := range out.Settings {
		out.Scheduler = out.Scheduler || s.Name == "shared_preload_libraries" && strings.Contains(s.Value, "pg_cron")
	}
	return out, nil
}

func things(ctx context.Context, conn *pgx.Conn, what, sql string) ([]Thing, error) {
	rows, err := conn.Query(ctx, sql+` ORDER BY 1 LIMIT `+mostThings)
	if err != nil {
		return nil, pg.Classify(err, "list "+what)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Thing, err error) {
		return t, row.Scan(&t.Name, &t.Value, &t.Detail)
	})
	return list, pg.Classify(err, "list "+what)
}

// ReadJobs lists jobs of pg_cron and pgAgent that are kept in the database of a session and run
// in another one, of: an empty name is any. What a job does is not read: it may hold a secret.
//
// Only the extension's own table is read, whose owner is a superuser, and only where no
// policy of rows is applied: no code of others is run.
func ReadJobs(ctx context.Context, conn *pgx.Conn, of string) ([]Thing, error) {
	var all []Thing
	for _, kept := range []struct{ extension, schema, table, name, database string }{
		{"pg_cron", "cron", "job", `coalesce(nullif(j->>'jobname', ''), j->>'jobid')`, `j->>'database'`},
		{"pgagent", "pgagent", "pga_job", `j->>'jobname'`, `$1::text`},
	} {
		var readable bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
			JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid AND e.extname = $1
			JOIN pg_catalog.pg_roles o ON o.oid = c.relowner AND o.rolsuper
			WHERE n.nspname = $2 AND c.relname = $3 AND c.relkind = 'r' AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
			AND (NOT c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND (r.rolsuper OR r.rolbypassrls))))`,
			kept.extension, kept.schema, kept.table).Scan(&readable)
		if err != nil {
			return nil, pg.Classify(err, "look for jobs")
		}
		if !readable {
			continue
		}
		table := sqlname.Table{Schema: kept.schema, Name: kept.table}
		rows, err := conn.Query(ctx, `SELECT `+kept.name+`, coalesce(j->>'schedule', '') FROM (SELECT pg_catalog.to_jsonb(t) AS j FROM ONLY `+table.SQL()+` t) x
			WHERE $1::text = '' OR `+kept.database+` = $1::text ORDER BY 1 LIMIT `+mostThings, of)
		if err != nil {
			return nil, pg.Classify(err, "list jobs")
		}
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Thing, err error) {
			return t, row.Scan(&t.Name, &t.Detail)
		})
		if err != nil {
			return nil, pg.Classify(err, "list jobs")
		}
		for _, t := range list {
			t.Value = kept.extension
			all = append(all, t)
		}
	}
	return all, nil
}

// CronDatabase is the database in which pg_cron keeps its jobs, "" where the server does not say.
func CronDatabase(ctx context.Context, conn *pgx.Conn) (name string, err error) {
	err = conn.QueryRow(ctx, `SELECT coalesce(pg_catalog.current_setting('cron.database_name', true), '')`).Scan(&name)
	return name, pg.Classify(err, "look where jobs are kept")
}
