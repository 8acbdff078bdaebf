package assess

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// own leaves out what is not the user's: n is the schema, x the object's oid. What
// an extension made comes with the extension.
const own = ` n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND n.nspname NOT LIKE 'pg\_temp%%' AND n.nspname NOT LIKE 'pg\_toast%%'
	AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '%[1]s'::regclass AND e.objid = %[2]s AND e.deptype = 'e')`

func ownIn(class, oid string) string { return fmt.Sprintf(own, class, oid) }

// rule is a query whose every row is a finding: the object's name and two words
// for the texts. In why and remedy, {1} is the object, {2} and {3} are the words.
type rule struct {
	code     string
	severity problem.Severity
	sql      string
	why      string
	remedy   string
}

func (l *primaryLook) apply(ctx context.Context, rules []rule) error {
	for _, r := range rules {
		if err := applyRule(ctx, l.conn, &l.found, r); err != nil {
			return err
		}
	}
	return nil
}

func applyRule(ctx context.Context, conn *pgx.Conn, f *findings, r rule) error {
	rows, err := conn.Query(ctx, r.sql)
	if err != nil {
		return pg.Classify(err, "look for "+r.code)
	}
	var object, second, third string
	_, err = pgx.ForEachRow(rows, []any{&object, &second, &third}, func() error {
		words := strings.NewReplacer("{1}", object, "{2}", second, "{3}", third)
		f.add(r.severity, r.code, object, words.Replace(r.why), words.Replace(r.remedy))
		return nil
	})
	return pg.Classify(err, "look for "+r.code)
}

// maintenance is the database that tools connect to for what concerns the whole instance.
const maintenance = "postgres"

// reserved says whether new databases are made from a database.
func reserved(name string) bool { return name == "template0" || name == "template1" }

// database judges the database as a whole.
func (l *primaryLook) database(ctx context.Context) error {
	f := &l.found
	name := l.report.Source.Database
	var template, secondary, schema, ours bool
	var collation, actual string
	err := l.conn.QueryRow(ctx, `SELECT datistemplate, EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'twinspan_gate'),
		coalesce(to_jsonb(d)->>'datcollversion', '')
		FROM pg_database d WHERE datname = current_database()`).Scan(&template, &secondary, &collation)
	if err != nil {
		return pg.Classify(err, "look at the database")
	}
	if schema, ours, err = catalog.Ours(ctx, l.conn); err != nil {
		return err
	}
	l.linked = ours
	if reserved(name) {
		f.blocksIf(true, "database_name_reserved", name, "new databases are made from this one: what a link makes in it would be in all of them", "link another database")
		template = false // which would not help
	}
	f.warnsIf(name == maintenance, "maintenance_database", name, "the database postgres is where instances are administered from: on the secondary CREATE DATABASE, CREATE ROLE and whatever else tools do in it would be refused",
		"link the database that the application has")
	f.blocksIf(template, "database_is_template", name, "a template database cannot be linked", "ALTER DATABASE "+sqlname.Quote(name)+" IS_TEMPLATE false")
	f.blocksIf(secondary, "database_is_secondary", name, "the database is already the secondary of a link", "link its primary instead")
	f.blocksIf(schema && !ours, "schema_taken", "twinspan", "the database has a schema twinspan that Twinspan did not make", "ALTER SCHEMA twinspan RENAME TO ...")
	f.informsIf(l.report.Source.Encoding == "SQL_ASCII", "encoding_unchecked", name, "the encoding is SQL_ASCII: the server has never checked its text, which is copied byte by byte", "")
	if l.report.Source.Major >= 15 {
		err := l.conn.QueryRow(ctx, `SELECT coalesce(pg_database_collation_actual_version(oid), '') FROM pg_database WHERE datname = current_database()`).Scan(&actual)
		if err != nil {
			return pg.Classify(err, "look at the version of the collation")
		}
		f.warnsIf(collation != "" && collation != actual, "collation_stale", name,
			fmt.Sprintf("the database was made with version %s of its collation, the system has %q: indexes of text on the primary may be out of order", collation, actual),
			"REINDEX DATABASE "+sqlname.Quote(name)+"; ALTER DATABASE "+sqlname.Quote(name)+" REFRESH COLLATION VERSION")
	}
	for _, s := range l.report.Needs.Settings {
		switch s.Name {
		case "default_transaction_read_only", "role", "session_authorization", "session_replication_role":
			f.informsIf(true, "setting_left", s.Name, "this setting of the database stays on the primary: on the twin it would be in the link's way", "")
		}
	}
	return nil
}

// tables judges what the database's tables are.
func (l *primaryLook) tables(ctx context.Context) error {
	if err := l.judgeLargeObjects(ctx); err != nil {
		return err
	}
	if err := l.judgeLocks(ctx); err != nil {
		return err
	}
	const table = `format('%I.%I', n.nspname, c.relname)`
	ordinary := ` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ` + ownIn("pg_class", "c.oid")
	return l.apply(ctx, []rule{
		{"table_without_key", problem.Informs,
			`SELECT ` + table + `, '', ''` + ordinary + ` AND c.relkind = 'r' AND c.relpersistence = 'p' AND (c.relreplident = 'n'
				OR c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
					AND CASE c.relreplident WHEN 'i' THEN x.indisreplident ELSE x.indisprimary END
					AND NOT EXISTS (SELECT FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
						WHERE k.n <= coalesce((to_jsonb(x)->>'indnkeyatts')::int, x.indnatts) AND current_setting('server_version_num')::int < 180000 AND to_jsonb(a)->>'attgenerated' = 's'))) ORDER BY 1`,
			"the table has no primary key that is sent: it gets REPLICA IDENTITY FULL while it is linked, which makes its UPDATE and DELETE write more log and take longer on the twin",
			"ALTER TABLE {1} ADD PRIMARY KEY (...); or ALTER TABLE {1} REPLICA IDENTITY USING INDEX ..."},
		{"table_not_updatable", problem.Warns,
			// Columns that are computed when they are read can be in no identity (execReplication.c, CheckCmdReplicaIdentity).
			`SELECT ` + table + `, '', ''` + ordinary + ` AND c.relkind = 'r' AND c.relpersistence = 'p'
				AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND to_jsonb(a)->>'attgenerated' = 'v')
				AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL
					AND NOT EXISTS (SELECT FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
						WHERE k.n <= coalesce((to_jsonb(x)->>'indnkeyatts')::int, x.indnatts) AND NOT a.attnotnull)) ORDER BY 1`,
			"the table has a virtual generated column and no key: while it is linked the server refuses its UPDATE and DELETE",
			"ALTER TABLE {1} ADD PRIMARY KEY (...); or make the column STORED"},
		{"access_method_undecoded", problem.Warns,
			`SELECT ` + table + `, a.amname, a.amhandler::text FROM pg_am a JOIN pg_class c ON c.relam = a.oid JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE ` + ownIn("pg_class", "c.oid") + ` AND c.relkind = 'r' AND c.relpersistence = 'p' AND a.amhandler::text <> 'heap_tableam_handler'`,
			"the table's access method {2} ({3}) keeps its rows otherwise than PostgreSQL does, and may not write changes into the log in a form that can be decoded: they would be missing on the twin",
			"ALTER TABLE {1} SET ACCESS METHOD heap; or accept it, if the method's documentation says that logical replication works with it"},
		{"unlogged_table", problem.Informs,
			`SELECT ` + table + `, '', ''` + ordinary + ` AND c.relkind IN ('r', 'p') AND c.relpersistence = 'u' ORDER BY 1`,
			"the table is unlogged: it is created on the twin and stays empty there", "ALTER TABLE {1} SET LOGGED"},
		{"tablespace_not_kept", problem.Informs,
			`SELECT ` + table + `, t.spcname::text, CASE c.relkind WHEN 'i' THEN 'INDEX' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END
			   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_tablespace t ON t.oid = c.reltablespace
			  WHERE ` + ownIn("pg_class", "c.oid") + ` AND c.relkind IN ('r', 'i', 'm') ORDER BY 1`,
			"it lies in the tablespace {2}; on the twin it is made in the default one",
			"on the twin, once the link replicates and is deleted or has changed places: ALTER {3} {1} SET TABLESPACE {2}"},
		{"trigger_fires_on_twin", problem.Informs,
			`SELECT format('%I on %I.%I', t.tgname, n.nspname, c.relname), format('%I.%I', n.nspname, c.relname), format('%I', t.tgname)
			   FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
			  WHERE ` + ownIn("pg_class", "c.oid") + ` AND t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal AND t.tgname NOT LIKE 'twinspan\_%' ORDER BY 1`,
			"the trigger is enabled for replicas: on the twin it is put aside as long as that is a secondary, for its rows hold already what it did",
			"ALTER TABLE {2} ENABLE TRIGGER {3}"},
		{"rule_fires_on_twin", problem.Informs,
			`SELECT format('%I on %I.%I', r.rulename, n.nspname, c.relname), format('%I.%I', n.nspname, c.relname), format('%I', r.rulename)
			   FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
			  WHERE ` + ownIn("pg_class", "c.oid") + ` AND c.relkind IN ('r', 'p') AND r.ev_enabled IN ('A', 'R') AND r.ev_type <> '1' ORDER BY 1`,
			"the rule is enabled for replicas: on the twin it is put aside as long as that is a secondary",
			"ALTER TABLE {2} ENABLE RULE {3}"},
		{"partitioned_by_hash_of_enum", problem.Blocks, hashedSQL(l.report.Source.Major),
			"the table spreads rows over partitions by the hash of an enum, which differs from server to server: the same row belongs to different partitions",
			"partition it by LIST of the enum, or by the hash of its text"},
		{"type_without_input", problem.Blocks,
			// pg_node_tree, pg_ndistinct, pg_dependencies, pg_mcv_list, pg_brin_*_summary, and what is made of them.
			`WITH RECURSIVE made (base, oid) AS (
				SELECT typbasetype, oid FROM pg_type WHERE typtype = 'd' UNION ALL SELECT typelem, oid FROM pg_type WHERE typcategory = 'A' AND typelem <> 0
				UNION ALL SELECT a.atttypid, c.reltype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped AND c.reltype <> 0
			), bad AS (
				SELECT oid FROM pg_type WHERE oid IN (194, 3361, 3402, 5017, 4600, 4601) UNION SELECT m.oid FROM bad b JOIN made m ON m.base = b.oid
			) SELECT ` + table + `, string_agg(DISTINCT format_type(a.atttypid, NULL), ', '), string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum)
			   FROM pg_attribute a JOIN bad ON bad.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence = 'p' JOIN pg_namespace n ON n.oid = c.relnamespace
			  WHERE ` + ownIn("pg_class", "c.oid") + ` AND a.attnum > 0 AND NOT a.attisdropped GROUP BY 1 ORDER BY 1`,
			"its column {3} is of a type that no server reads ({2}): its rows cannot be copied",
			"change the column: ALTER TABLE {1} ALTER {3} TYPE text; or drop the table"},
		{"collation_nondeterministic", problem.Informs,
			`SELECT DISTINCT format('%I.%I', n.nspname, l.collname), '', '' FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
			   JOIN pg_collation l ON l.oid = a.attcollation JOIN pg_namespace n ON n.oid = l.collnamespace
			  WHERE to_jsonb(l)->>'collisdeterministic' = 'false' ORDER BY 1`,
			"the collation takes different texts for equal; keys with it are told apart as the index does it, and the ICU of the two servers must agree", ""},
	})
}

// hashedSQL is empty of rows before version 11, which has no such partitions.
func hashedSQL(major int) string {
	if major < 11 {
		return `SELECT '', '', '' WHERE false`
	}
	return `SELECT DISTINCT format('%I.%I', n.nspname, c.relname), '', ''
		  FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (p.partattrs::int2[]) JOIN pg_type t ON t.oid = a.atttypid
		  LEFT JOIN pg_type b ON b.oid IN (t.typbasetype, t.typelem)
		 WHERE p.partstrat = 'h' AND 'e' IN (t.typtype, b.typtype) ORDER BY 1`
}

func (l *primaryLook) judgeLargeObjects(ctx context.Context) error {
	var objects int
	var readable bool
	err := l.conn.QueryRow(ctx, `SELECT count(*)::int, has_table_privilege('pg_catalog.pg_largeobject', 'SELECT') FROM (SELECT FROM pg_largeobject_metadata LIMIT 100000) x`).
		Scan(&objects, &readable)
	l.found.blocksIf(objects > 0 && !readable, "large_objects_unreadable", "pg_largeobject", "the agent's role may not read the pages of large objects",
		"as a superuser: GRANT SELECT ON pg_catalog.pg_largeobject TO "+sqlname.Quote(l.DSN.User()))
	l.found.informsIf(objects > 0, "large_objects_in_passes", "pg_largeobject",
		fmt.Sprintf("the database has %d large objects; they are copied, and their later changes are brought in passes, every five minutes by default, not with the stream", objects),
		"twinspan link large-objects NAME --every 1m; or move them into bytea columns: UPDATE ... SET content = lo_get(id); SELECT lo_unlink(id)")
	return pg.Classify(err, "count the large objects")
}

// judgeLocks: pg_dump locks every table at once (common.c and pg_dump.c,
// getTables), in a table of locks whose size is set at the start of the server.
func (l *primaryLook) judgeLocks(ctx context.Context) error {
	var tables, room, each int
	err := l.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND `+ownIn("pg_class", "c.oid")+`)::int,
		current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int),
		current_setting('max_locks_per_transaction')::int`).Scan(&tables, &room, &each)
	if err != nil {
		return pg.Classify(err, "count the tables")
	}
	l.found.warnsIf(tables > room*8/10, "locks_short", "max_locks_per_transaction",
		fmt.Sprintf("the database has %d tables, all of which are locked at once when the schema is read; the server has room for about %d locks", tables, room),
		fmt.Sprintf("ALTER SYSTEM SET max_locks_per_transaction = %d; then restart the server", max(2*each, each*tables/max(1, room)*2)))
	return nil
}

// columns names the tables with columns whose values cross as text.
func (l *primaryLook) columns(ctx context.Context) error {
	types, err := pg.UnportableTypes(ctx, l.conn)
	if err != nil || len(types) == 0 {
		return err
	}
	oids := make([]uint32, 0, len(types))
	for oid := range types {
		oids = append(oids, oid)
	}
	rows, err := l.conn.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname), string_agg(DISTINCT format_type(a.atttypid, NULL), ', ')
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence = 'p' JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = ANY ($1) AND `+ownIn("pg_class", "c.oid")+` GROUP BY 1 ORDER BY 1`, oids)
	if err != nil {
		return pg.Classify(err, "list the types of columns")
	}
	var table, names string
	_, err = pgx.ForEachRow(rows, []any{&table, &names}, func() error {
		l.found.informsIf(true, "types_as_text", table, "values of "+names+" mean something else on another server in binary form: the rows of this database cross as text, which is slower", "")
		return nil
	})
	return pg.Classify(err, "list the types of columns")
}

// programs judges what acts by itself.
func (l *primaryLook) programs(ctx context.Context) error {
	return l.apply(ctx, []rule{
		{"event_trigger_fires_on_twin", problem.Informs,
			`SELECT format('%I', evtname), '', '' FROM pg_event_trigger e WHERE evtenabled IN ('A', 'R') AND evtname NOT LIKE 'twinspan\_%' AND evtname NOT LIKE '!twinspan\_%'
			   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e') ORDER BY 1`,
			"the event trigger is enabled for replicas: on the twin it is put aside as long as that is a secondary", "ALTER EVENT TRIGGER {1} ENABLE"},
		{"event_trigger_of_role", problem.Warns,
			`SELECT format('%I', evtname), pg_get_userbyid(p.proowner)::text, p.oid::regprocedure::text FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_roles o ON o.oid = p.proowner
			  WHERE e.evtenabled <> 'D' AND NOT o.rolsuper AND evtname NOT LIKE 'twinspan\_%' AND evtname NOT LIKE '!twinspan\_%' ORDER BY 1`,
			"the event trigger runs a function of role {2}, who is no superuser, with the rights of whoever changes the schema, superusers among them: on this server, and on the other one once that is the primary",
			"ALTER FUNCTION {3} OWNER TO a superuser, and let nobody else replace it"},
		{"fdw_validator_of_role", problem.Warns,
			`SELECT format('%I', w.fdwname), pg_get_userbyid(p.proowner)::text, p.oid::regprocedure::text FROM pg_foreign_data_wrapper w JOIN pg_proc p ON p.oid = w.fdwvalidator JOIN pg_roles o ON o.oid = p.proowner WHERE NOT o.rolsuper ORDER BY 1`,
			"the foreign data wrapper has options validated by a function of role {2}, who is no superuser: the first copy makes servers and foreign tables with the agent's rights, and the function runs with them",
			"ALTER FUNCTION {3} OWNER TO a superuser, and let nobody else replace it"},
		{"operator_class_of_role", problem.Warns,
			`SELECT DISTINCT ON (o.oid) format('%I.%I', n.nspname, o.opcname), pg_get_userbyid(p.proowner)::text, p.oid::regprocedure::text
			   FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace JOIN pg_amproc a ON a.amprocfamily = o.opcfamily JOIN pg_proc p ON p.oid = a.amproc AND p.oid >= 16384
			   JOIN pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('internal', 'c') JOIN pg_roles r ON r.oid = p.proowner AND NOT r.rolsuper
			  WHERE EXISTS (SELECT FROM pg_partitioned_table t WHERE o.oid = ANY (t.partclass::oid[]))
			     OR l.lanname NOT IN ('sql', 'plpgsql') AND EXISTS (SELECT FROM pg_range g WHERE g.rngsubopc = o.oid) ORDER BY o.oid, p.oid`,
			"the bounds of partitions or ranges are compared by a function of role {2}, who is no superuser: it runs with the rights of whoever uses the partitioned table, superusers among them, and the first copy makes the partitions with the agent's rights",
			"ALTER FUNCTION {3} OWNER TO a superuser, and let nobody else replace it"},
		{"function_in_c", problem.Warns,
			`SELECT p.oid::regprocedure::text, p.probin, '' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language a ON a.oid = p.prolang
			  WHERE a.lanname = 'c' AND ` + ownIn("pg_proc", "p.oid") + ` ORDER BY 1`,
			"the function needs the library {2}, which must be on the secondary's machine too", "install the library there, then accept this; or DROP FUNCTION {1}"},
		{"jobs_not_carried", problem.Informs,
			`SELECT s.name, s.what, '' FROM (VALUES ('cron.job', 'pg_cron'), ('pgagent.pga_job', 'pgAgent'), ('timetable.chain', 'pg_timetable')) AS s (name, what)
			  WHERE to_regclass(s.name) IS NOT NULL ORDER BY 1`,
			"{2} keeps its jobs in this database; whether they run on the twin is decided by {2} there, and what writes is refused until the sides change places",
			"have the scheduler stopped on the twin's instance, and start it there when the sides have changed places"},
	})
}

// outside judges what points out of the database.
func (l *primaryLook) outside(ctx context.Context) error {
	return l.apply(ctx, []rule{
		{"foreign_server", problem.Informs,
			`SELECT format('%I', s.srvname), count(t.ftrelid)::text, '' FROM pg_foreign_server s LEFT JOIN pg_foreign_table t ON t.ftserver = s.oid GROUP BY s.srvname ORDER BY 1`,
			"the foreign server and its {2} foreign tables are created on the twin as they are; the rows stay where they are, and the twin's server must reach them by the same address",
			"ALTER SERVER {1} OPTIONS (SET host '...') with an address that both servers can reach"},
		{"publication_not_carried", problem.Informs,
			`SELECT format('%I', pubname), '', '' FROM pg_publication WHERE pubname NOT LIKE 'twinspan\_%' ORDER BY 1`,
			"the publication stays on the primary: its subscribers would receive everything twice", "create it on the twin when the sides have changed places: CREATE PUBLICATION {1} ..."},
		{"subscription_not_carried", problem.Warns,
			`SELECT format('%I', subname), '', '' FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subenabled ORDER BY 1`,
			"the subscription stays on the primary: its rows reach the twin through the link, but after a change of places it would go on writing here",
			"accept this and plan to move it: ALTER SUBSCRIPTION {1} DISABLE before the change of places, CREATE SUBSCRIPTION on the new primary after it"},
	})
}
