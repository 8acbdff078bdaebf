package ddl

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Setting is a setting of a session and its value.
type Setting struct{ Name, Value string }

// Rights say with whose rights a change is made on the twin, and in what a session.
type Rights struct {
	// Name makes the names of the functions that fence the change ones that nobody
	// foresees, of its two halves: code of the users' that ran in the session before may have made
	// functions there. It has letters and digits only.
	Name string
	// Ordinary is what an ordinary session of the twin's database has of those
	// settings that the agent's session fixes for itself.
	Ordinary []Setting
	// Lent makes the change with the rights of the agent's role, and gives what
	// it made to the role of the change afterwards. The twin's operator agreed to it.
	Lent bool
	// Settle gives the session back what RESET ALL takes from it, "" for nothing.
	Settle string
	// Filled, with Lent, is the materialized view that the change fills, quoted: its
	// query runs as its owner, so the agent's role is that meanwhile.
	Filled string
	// Aside, when set, is run between the change and what brings rows to the primary's
	// values: it keeps triggers from firing for that.
	Aside string
	// Versioned says that this server has the version of the extension that the change
	// makes or updates.
	Versioned bool
}

// Script is what makes a change on the twin: statements for one session that may do
// everything, in one transaction, to be run one by one. The change itself runs in a
// function that belongs to the change's role and is SECURITY DEFINER: within one the
// server lets nobody take another role (guc.c and miscinit.c,
// InLocalUserIdChange), so no code of the users', which a change may call, has more
// rights than that role. docs/design/0022-replay-with-rights.md has the reasons.
type Script struct {
	Statements []string
	Main       int // index of the change itself; the others prepare and clean up
}

// Script returns the statements. None means that nothing of the change has a
// meaning on the twin.
func (c *Change) Script(r Rights) Script {
	sql := c.rewrite(r.Versioned)
	if sql == "" && c.Config == nil {
		return Script{}
	}
	if c.Tag == "DROP OWNED" {
		sql = c.dropOwned()
	}
	needed, asked := c.settings(r.Ordinary)
	var after []string
	for _, a := range c.After {
		after = append(after, filling(string(a)))
	}
	var s Script
	for _, table := range c.becomeViews() {
		s.add("DO " + sqlname.Literal(strings.Replace(ungate, "$table", sqlname.Literal(table), 1)))
	}
	var main []string
	for _, b := range c.Before {
		main = append(main, string(b))
	}
	if c.Invalid {
		sql = tolerated(sql)
	}
	half := len(r.Name) / 2
	if sql != "" {
		s.Main = s.fence(c, r, r.Name[:half], needed, asked, append(main, sql))
	}
	if c.Config != nil {
		s.add(c.configured())
	}
	if len(after) > 0 {
		if r.Aside != "" {
			s.add(r.Aside)
		}
		// By a function of its own: the first belongs to the role, whose code has run and may have changed it.
		s.fence(c, r, r.Name[half:], needed, asked, after)
	}
	return s
}

// fence adds what runs commands with the rights of the change, and returns which statement does.
func (s *Script) fence(c *Change, r Rights, name string, needed, asked []Setting, commands []string) (main int) {
	name = "pg_temp.twinspan_change_" + name
	const parameters = "(needed pg_catalog.text[], asked pg_catalog.text[], commands pg_catalog.text[])"
	if r.Lent {
		s.add("CREATE FUNCTION " + name + parameters + " RETURNS pg_catalog.void LANGUAGE plpgsql AS " + sqlname.Literal(lent(string(c.Role), r.Filled)))
	} else {
		s.add("CREATE FUNCTION " + name + parameters + " RETURNS pg_catalog.void LANGUAGE plpgsql SECURITY DEFINER AS " + sqlname.Literal(fenced))
		s.add("ALTER FUNCTION " + name + " OWNER TO " + sqlname.Quote(string(c.Role)))
	}
	main = len(s.Statements)
	s.add("SELECT " + name + "(" + pairs(needed) + ", " + pairs(asked) + ", " + texts(commands) + ")")
	s.tidy(r.Settle)
	s.add("DROP FUNCTION IF EXISTS " + name + "(pg_catalog.text[], pg_catalog.text[], pg_catalog.text[])")
	return main
}

// configured gives a function all the settings that the primary's has.
func (c *Change) configured() string {
	config := "NULL"
	if len(*c.Config) > 0 {
		list := make([]string, len(*c.Config))
		for i, s := range *c.Config {
			list[i] = string(s)
		}
		config = texts(list)
	}
	return "UPDATE pg_catalog.pg_proc SET proconfig = " + config + " WHERE oid OPERATOR(pg_catalog.=) " + sqlname.Literal(c.Subject()) + "::pg_catalog.regprocedure"
}

// tolerated makes of a CREATE INDEX one that may meet the rows for which it has no entry: the
// primary's index is invalid for their sake, which is none to the twin.
func tolerated(sql string) string {
	return "DO " + sqlname.Literal("BEGIN EXECUTE "+sqlname.Literal(sql)+"; EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN NULL; END")
}

// becomeViews lists the tables that a change makes views: before version 16 a rule can.
func (c *Change) becomeViews() (names []string) {
	for _, o := range c.Objects {
		if name, is := strings.CutPrefix(string(o), `"_RETURN" on `); is && c.Tag == "CREATE RULE" {
			names = append(names, name)
		}
	}
	return names
}

// ungate takes the gate from a table, for one with triggers becomes no view
// (rewriteDefine.c, DefineQueryRewrite); and that there have been some, which else only
// VACUUM would notice (trigger.c, RemoveTriggerById).
const ungate = `DECLARE
	t pg_catalog.regclass := pg_catalog.to_regclass($table);
	name pg_catalog.name;
BEGIN
	FOR name IN SELECT g.tgname FROM pg_catalog.pg_trigger g WHERE g.tgrelid OPERATOR(pg_catalog.=) t AND g.tgname OPERATOR(pg_catalog.~) '^twinspan_(gate|truncate)' LOOP
		EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', name, t);
	END LOOP;
	UPDATE pg_catalog.pg_class SET relhastriggers = false WHERE oid OPERATOR(pg_catalog.=) t
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid OPERATOR(pg_catalog.=) t);
END`

// tidy ends what code of the users' left behind; settle gives the session back what that
// takes from it.
func (s *Script) tidy(settle string) {
	for _, sql := range Tidy {
		s.add(sql)
		if sql == "RESET ALL" && settle != "" {
			s.add(settle)
		}
	}
}

func (s *Script) add(sql string) { s.Statements = append(s.Statements, sql) }

// filling lets a statement that brings rows to the primary's values reach every row:
// the table's owner, who altered it, sees them all but where row security is forced.
func filling(sql string) string {
	t := scan(sql, true)
	if len(t) < 5 || !t[0].is("update") || !t[1].is("only") || !t[2].name() || t[3].word != "." || !t[4].name() {
		return sql
	}
	table := sql[t[2].start:t[4].end]
	return "DO " + sqlname.Literal("BEGIN IF (SELECT relforcerowsecurity FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) "+sqlname.Literal(table)+
		"::pg_catalog.regclass) THEN ALTER TABLE "+table+" NO FORCE ROW LEVEL SECURITY; "+sql+"; ALTER TABLE "+table+" FORCE ROW LEVEL SECURITY; ELSE "+sql+"; END IF; END")
}

// Tidy are statements for a session in which code of the users' has run, in the same
// transaction. What such code can leave behind there would go on with the session's
// rights: a cursor WITH HOLD runs its query at COMMIT (portalcmds.c,
// PersistHoldablePortal), and so does, before version 18 as the session's role, a
// trigger that was deferred. (Package rights does the same for rows.) Prepared statements, which outlive a rollback too, are
// the session's owner's to give up (DEALLOCATE ALL).
// RESET ALL brings back the values that the session began with.
var Tidy = []string{"CLOSE ALL", "UNLISTEN *", "RESET ALL", pendingSQL}

// pendingSQL fails when a trigger that may fire in replica role is deferred to the
// commit: the server refuses to alter a table with pending events (tablecmds.c,
// CheckTableNotInUse), and a trigger with such can be neither dropped nor disabled.
const pendingSQL = `DO $tidy$
DECLARE
	g pg_catalog.record;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND t.tgparentid = 0 AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')) THEN
		RETURN;
	END IF;
	FOR g IN SELECT n.nspname, c.relname, t.tgname, CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END AS fires
	           FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	          WHERE t.tgdeferrable AND t.tgparentid = 0 AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') LOOP
		EXECUTE pg_catalog.format('ALTER TABLE ONLY %I.%I ENABLE %s TRIGGER %I', g.nspname, g.relname, g.fires, g.tgname);
	END LOOP;
END
$tidy$`

// fenced is the function's body. Its statements are read under the settings of the
// change, so that no name or operator in it is left to a search_path. Settings that
// the role may not set, or that this server does not know, are left as they are.
const fenced = `DECLARE
	s pg_catalog.text[];
	q pg_catalog.text;
BEGIN
	FOREACH s SLICE 1 IN ARRAY needed LOOP
		PERFORM pg_catalog.set_config(s[1], s[2], true);
	END LOOP;
	FOREACH s SLICE 1 IN ARRAY asked LOOP
		BEGIN
			PERFORM pg_catalog.set_config(s[1], s[2], true);
		EXCEPTION WHEN OTHERS THEN
		END;
	END LOOP;
	FOREACH q IN ARRAY commands LOOP
		EXECUTE q;
	END LOOP;
	SET CONSTRAINTS ALL IMMEDIATE;
	IF pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool THEN
		RAISE EXCEPTION USING ERRCODE = 'TSF02', MESSAGE = 'code that the command calls made the transaction read-only';
	END IF;
END`

// lent is the body for a change that is made with the agent's rights. What it made
// belongs to the agent's role; the change's role gets it, but for what only a
// superuser may own.
func lent(role, filled string) string {
	body := strings.Replace(fenced, "\tq pg_catalog.text;\n", "\tq pg_catalog.text;\n\towner pg_catalog.text;\n\tbefore pg_catalog.text[];\n", 1)
	first, last := "\tbefore := ARRAY("+ownedSQL+");\n", "\tPERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);\n"
	if filled != "" {
		view := "ALTER MATERIALIZED VIEW " + filled + " OWNER TO "
		first += "\tSELECT c.relowner::pg_catalog.regrole::pg_catalog.text INTO STRICT owner FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(" +
			sqlname.Literal(filled) + ")::pg_catalog.oid;\n\tEXECUTE " + sqlname.Literal(view+"CURRENT_USER") + ";\n"
		last += "\tEXECUTE pg_catalog.concat(" + sqlname.Literal(view) + ", owner);\n"
	}
	last += "\tFOR q IN " + ownedSQL + " EXCEPT SELECT pg_catalog.unnest(before) LOOP\n" +
		"\t\tEXECUTE pg_catalog.concat(q, " + sqlname.Literal(" OWNER TO "+sqlname.Quote(role)) + ");\n\tEND LOOP;\n"
	body = strings.Replace(body, "BEGIN\n", "BEGIN\n"+first, 1)
	return strings.Replace(body, "\tSET CONSTRAINTS", last+"\tSET CONSTRAINTS", 1)
}

// ownedSQL lists what the session's role owns, but for what cannot change its owner by
// itself, as the beginning of the statement that does so.
const ownedSQL = `SELECT pg_catalog.concat('ALTER ', CASE i.type WHEN 'composite type' THEN 'type' WHEN 'statistics object' THEN 'statistics' ELSE i.type END, ' ', i.identity)
	  FROM (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS class, oid, relowner AS owner FROM pg_catalog.pg_class c
	         WHERE relkind IN ('r', 'p', 'v', 'm', 'f') OR relkind OPERATOR(pg_catalog.=) 'S' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
	               WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype IN ('a', 'i'))
	        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, proowner FROM pg_catalog.pg_proc
	        UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typowner FROM pg_catalog.pg_type t WHERE typtype IN ('b', 'd', 'e', 'r', 'c')
	               AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray OPERATOR(pg_catalog.=) t.oid)
	               AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) t.typrelid AND c.relkind OPERATOR(pg_catalog.<>) 'c')
	        UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, nspowner FROM pg_catalog.pg_namespace
	        UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprowner FROM pg_catalog.pg_operator
	        UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcowner FROM pg_catalog.pg_opclass
	        UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfowner FROM pg_catalog.pg_opfamily
	        UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collowner FROM pg_catalog.pg_collation
	        UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, conowner FROM pg_catalog.pg_conversion
	        UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgowner FROM pg_catalog.pg_ts_config
	        UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictowner FROM pg_catalog.pg_ts_dict
	        UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid, stxowner FROM pg_catalog.pg_statistic_ext
	        UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, lanowner FROM pg_catalog.pg_language
	        UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, srvowner FROM pg_catalog.pg_foreign_server) o
	 CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.class, o.oid, 0) i
	 WHERE o.oid OPERATOR(pg_catalog.>=) 16384 AND o.owner OPERATOR(pg_catalog.=) (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
	   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid OPERATOR(pg_catalog.=) o.class AND d.objid OPERATOR(pg_catalog.=) o.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')`

// agents are settings that belong to the agent's session whatever a session of the
// primary had: how long it waits, what it says to the network, as whom and past what
// it acts, what it logs. Those of transactions cannot change within one.
var agents = []string{
	"lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout", "deadlock_timeout",
	"client_encoding", "application_name", "client_min_messages", "lc_messages", "synchronous_commit", "event_triggers", "jit", "session_replication_role", "role", "session_authorization",
	"transaction_isolation", "transaction_read_only", "transaction_deferrable", "default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable",
	"tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout", "client_connection_check_interval",
	"local_preload_libraries", "session_preload_libraries", "is_superuser", "temp_tablespaces", "default_tablespace",
}

// agentsOwn says whether a setting is the agent's.
func agentsOwn(name string) bool {
	name = lower(name)
	return slices.Contains(agents, name) || strings.HasPrefix(name, "twinspan.") || strings.HasPrefix(name, "log_")
}

// never are those that not even SET ... FROM CURRENT brings over.
var never = []string{"role", "session_authorization", "session_replication_role"}

// planning are settings by which the agent's session plans for single rows; the
// change runs with what servers have by default unless its session had something else.
var planning = []Setting{{"enable_seqscan", "on"}, {"enable_hashjoin", "on"}, {"enable_mergejoin", "on"}, {"plan_cache_mode", "auto"}}

// neutral are values that say nothing: setting them could only fail.
var neutral = map[string]string{"default_table_access_method": "heap", "default_toast_compression": "pglz"}

// settings returns what the change's session had: needed is without what the change
// could mean something else, or what it stores itself (SET ... FROM CURRENT).
func (c *Change) settings(ordinary []Setting) (needed, asked []Setting) {
	current := c.fromCurrent()
	// The body was checked where it was written; here it may name what does not
	// cross, as temporary tables.
	needed = []Setting{{"check_function_bodies", "off"}}
	asked = slices.Clone(planning)
	names := make([]string, 0, len(c.Settings))
	known := map[string]bool{"check_function_bodies": true}
	for name := range c.Settings {
		names = append(names, name)
		known[lower(name)] = true
	}
	slices.Sort(names)
	for _, s := range ordinary {
		if !known[lower(s.Name)] && !agentsOwn(s.Name) {
			asked = append(asked, s)
		}
	}
	for _, name := range names {
		value := string(c.Settings[name])
		stored := slices.Contains(current, lower(name)) && !slices.Contains(never, lower(name))
		switch {
		case name == "check_function_bodies", neutral[name] == value && value != "":
		case stored:
			needed = append(needed, Setting{name, value})
		case agentsOwn(name):
		case name == "search_path" && strings.TrimSpace(value) == "":
			// No schema but what is searched anyway: before it that of temporary objects would be.
			needed = append(needed, Setting{name, "pg_catalog, pg_temp"})
		case name == "search_path" && !strings.Contains(value, "pg_temp"):
			// What code of somebody's left among the session's temporary objects is met last, not first.
			needed = append(needed, Setting{name, value + ", pg_temp"})
		case slices.Contains(carried, name):
			needed = append(needed, Setting{name, value})
		default:
			asked = append(asked, Setting{name, value})
		}
	}
	return needed, asked
}

// carried are settings that give a command's text its meaning. Everybody may set them.
var carried = []string{"search_path", "standard_conforming_strings", "DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits", "bytea_output", "xmlbinary", "xmloption", "array_nulls", "transform_null_equals",
	"default_text_search_config", "default_table_access_method", "default_toast_compression"}

// fromCurrent lists the settings whose value the change stores: SET name FROM CURRENT.
func (c *Change) fromCurrent() []string {
	if !strings.HasSuffix(c.Tag, "FUNCTION") && !strings.HasSuffix(c.Tag, "PROCEDURE") && !strings.HasSuffix(c.Tag, "ROUTINE") {
		return nil
	}
	t := scan(string(c.SQL), c.Conforming)
	var list []string
	for i := range t {
		if !t[i].is("from") || i+1 >= len(t) || !t[i+1].is("current") {
			continue
		}
		first := i
		for first > 0 && !t[first-1].is("set") {
			first--
		}
		var name strings.Builder
		for _, part := range t[first:i] {
			name.WriteString(lower(part.word))
		}
		if first > 0 {
			list = append(list, name.String())
		}
	}
	return list
}

// pairs writes settings as an array of two columns.
func pairs(list []Setting) string {
	rows := make([]string, len(list))
	for i, s := range list {
		rows[i] = texts([]string{s.Name, s.Value})
	}
	return "ARRAY[" + strings.Join(rows, ", ") + "]"
}

func texts(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strings.TrimPrefix(sqlname.Literal(s), " ")
	}
	return "ARRAY[" + strings.Join(quoted, ", ") + "]::pg_catalog.text[]"
}
