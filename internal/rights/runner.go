// Package rights keeps the code of users within the rights of its owner. Whatever
// evaluates a user's function (a CHECK, an index, a generated column, a schema change)
// is run through a fence: a function of the session's own that is SECURITY DEFINER and
// belongs to the role whose rights count. docs/design/0017-rights.md says why that is one.
package rights

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Setting is a parameter of the server with a value, as set_config takes it.
type Setting struct{ Name, Value string }

// Runner runs SQL in a session of a superuser with the rights of another role, and
// under settings of its own. It is SQL only, for whatever drives the session:
//
//	for each of Make: run it        (in the transaction, or before; anew after a rollback)
//	Prove (with what the gate lets pass as $1), Call (with the SQL as $1), Leave
//	                                (as often as wanted, nothing in between)
//	before the transaction commits: Check
//
// Inside, the server refuses SET ROLE and SET SESSION AUTHORIZATION, however code comes
// to them (miscinit.c, InLocalUserIdChange; guc.c, GUC_NOT_WHILE_SEC_REST), for as long
// as the call lasts; and nothing of the role's runs after it, for checks that are
// deferred and cursors that would be read at COMMIT are dealt with before it returns.
// The function lies in the session's temporary schema: it ends with the session, nobody
// else's session reaches it, and no dump has it. Who can change it is its owner, from
// inside; so before each call it is proved to be as it was made.
type Runner struct {
	role     string
	settings []Setting
	function string // its name
	body     string
}

// NewRunner is the runner of a role with settings that a session of its own would have.
func NewRunner(role string, settings []Setting) *Runner {
	r := &Runner{role: role, settings: settings}
	h := sha256.New()
	for _, s := range append([]Setting{{Name: role}}, settings...) {
		h.Write([]byte(s.Name + "\x00" + s.Value + "\x00"))
	}
	r.function = "twinspan_run_" + hex.EncodeToString(h.Sum(nil)[:12])
	r.body = bodyOf(settings)
	return r
}

// Role is whose rights the runner has.
func (r *Runner) Role() string { return r.role }

// bodyOf writes the function's body. Names of its own are such that no setting of
// plpgsql finds a conflict, and it uses no operator, for these are looked up by the
// search_path of the settings. What it does after the SQL takes away whatever could run
// code later, in the session's own name: checks that were put off are made now, cursors
// are closed (one WITH HOLD would be read at COMMIT: portalcmds.c, PersistHoldablePortal),
// and statements that were prepared under the names of ours are gone.
func bodyOf(settings []Setting) string {
	var b strings.Builder
	b.WriteString("#variable_conflict use_column\nDECLARE\n twinspan_rows pg_catalog.int8;\n twinspan_name pg_catalog.text;\n twinspan_ours pg_catalog.text;\nBEGIN\n" +
		" SELECT " + prepared + " INTO twinspan_ours;\n")
	for _, s := range settings {
		b.WriteString(" PERFORM pg_catalog.set_config(" + sqlname.Literal(s.Name) + ", " + sqlname.Literal(s.Value) + ", true);\n")
	}
	b.WriteString(` EXECUTE twinspan_sql;
 GET DIAGNOSTICS twinspan_rows = ROW_COUNT;
 SET CONSTRAINTS ALL IMMEDIATE;
 EXECUTE 'CLOSE ALL';
 FOR twinspan_name IN SELECT twinspan_p.name FROM pg_catalog.pg_prepared_statements AS twinspan_p WHERE twinspan_p.from_sql LOOP
  EXECUTE pg_catalog.concat('DEALLOCATE ', pg_catalog.quote_ident(twinspan_name));
 END LOOP;
 IF pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool THEN
  RAISE EXCEPTION USING ERRCODE = '` + stateLeft + `', MESSAGE = 'code of a user made the transaction read-only';
 END IF;
 SELECT ` + prepared + ` INTO twinspan_name;
 IF twinspan_name OPERATOR(pg_catalog.<>) twinspan_ours THEN
  RAISE EXCEPTION USING ERRCODE = '` + stateLeft + `', MESSAGE = 'code of a user gave up prepared statements of the session';
 END IF;
 RETURN twinspan_rows;
END`)
	return b.String()
}

// prepared is how many statements the session's own client has prepared.
const prepared = `(SELECT pg_catalog.count(*)::pg_catalog.text FROM pg_catalog.pg_prepared_statements AS twinspan_p WHERE NOT twinspan_p.from_sql)`

// stateLeft is the SQLSTATE of code that left something behind which nothing can take away.
const stateLeft = "TSF02"

// Make is the statements that make the function, or make it anew. They succeed or fail
// together with the transaction that they are in. Nobody but its owner may call it, whatever default
// privileges say: code of another role's may run in the same session.
func (r *Runner) Make() []string {
	name := "pg_temp." + sqlname.Quote(r.function)
	return []string{
		"DROP FUNCTION IF EXISTS " + name + "(pg_catalog.text) CASCADE",
		"CREATE FUNCTION " + name + "(twinspan_sql pg_catalog.text) RETURNS pg_catalog.int8 LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS " + sqlname.Literal(r.body),
		"ALTER FUNCTION " + name + "(pg_catalog.text) OWNER TO " + sqlname.Quote(r.role),
		"DO " + sqlname.Literal("DECLARE g pg_catalog.text; BEGIN FOR g IN SELECT DISTINCT CASE a.grantee WHEN '0' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END"+
			" FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a"+
			" WHERE p.oid OPERATOR(pg_catalog.=) "+sqlname.Literal(name+"(pg_catalog.text)")+"::pg_catalog.regprocedure::pg_catalog.oid AND a.grantee OPERATOR(pg_catalog.<>) p.proowner"+
			" LOOP EXECUTE pg_catalog.concat("+sqlname.Literal("REVOKE ALL ON FUNCTION "+name+"(pg_catalog.text) FROM ")+", g); END LOOP; END"),
	}
}

// Prove is the statement that fails unless the function is as it was made, and that takes
// the pass or the tickets in $1 for what is called next (pg.Ticket): the gate of a secondary lets nothing
// else through that code of users writes, where the session is one of pg.Session{Fenced: true}. It is one of
// its own, for what it proves counts when Call is planned: there, functions that call
// themselves immutable are folded and those in SQL inlined. An aggregate, a window function or a procedure in its place
// is none that Call could call. What else the function's owner
// can change (settings, cost) is of effect on his own code only: settings that need more
// rights than his are refused when it is called.
func (r *Runner) Prove() string { return r.prove("$1::pg_catalog.text") }

func (r *Runner) prove(pass string) string {
	return `SELECT ` + pg.TakeSQL(pass) + `, CASE pg_catalog.count(*) WHEN 1 THEN '1' ELSE 'twinspan: the fence was changed' END::pg_catalog.int8
  FROM pg_catalog.pg_proc p
 WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND p.proname OPERATOR(pg_catalog.=) ` + sqlname.Literal(r.function) + `
   AND p.proargtypes OPERATOR(pg_catalog.=) '25'::pg_catalog.oidvector
   AND p.prosecdef AND pg_catalog.pg_get_userbyid(p.proowner) OPERATOR(pg_catalog.=) ` + sqlname.Literal(r.role) + `
   AND p.provolatile OPERATOR(pg_catalog.=) 'v' AND NOT p.proretset
   AND p.prosrc OPERATOR(pg_catalog.=) ` + sqlname.Literal(r.body) + `
   AND p.prolang OPERATOR(pg_catalog.=) (SELECT l.oid FROM pg_catalog.pg_language l WHERE l.lanname OPERATOR(pg_catalog.=) 'plpgsql')`
}

// Call is the statement that runs the SQL in $1, which may be several commands; its tag
// counts the rows that the last of them touched, for it returns as many empty ones.
func (r *Runner) Call() string {
	return "SELECT FROM pg_catalog.generate_series(1::pg_catalog.int8, pg_temp." + sqlname.Quote(r.function) + "($1::pg_catalog.text))"
}

// Run is Prove, Call and Leave for a given SQL, without parameters: statements to be run
// one after the other, each by itself. The SQL may write by one statement on each of the tables.
func (r *Runner) Run(sql string, tables ...sqlname.Table) []string {
	tickets := make([]string, len(tables))
	for i, t := range tables {
		tickets[i] = sqlname.Literal(t.SQL()) + "::pg_catalog.regclass::pg_catalog.oid"
	}
	return r.run(sql, tickets...)
}

// RunDDL is Run for SQL that is one command that changes the schema.
func (r *Runner) RunDDL(sql string) []string { return r.run(sql, "0") }

func (r *Runner) run(sql string, tickets ...string) []string {
	call := "SELECT pg_temp." + sqlname.Quote(r.function) + "(" + sqlname.Literal(sql) + "::pg_catalog.text)"
	return append([]string{r.prove(pg.TicketOf(tickets...)), call}, Leave()...)
}

// Unforced puts statements between two that lift row security from the owner of a table, on whom
// it is forced, and force it again: policies never decide what is applied. table is as
// ALTER TABLE takes it. Nobody else sees the table meanwhile.
func Unforced(table string, list []string) []string {
	return slices.Concat([]string{"ALTER TABLE " + table + " NO FORCE ROW LEVEL SECURITY"}, list, []string{"ALTER TABLE " + table + " FORCE ROW LEVEL SECURITY"})
}

// Leave is the statements that follow a call at once: settings that code of a user left
// are what agents' sessions have.
func Leave() []string { return []string{"RESET ALL", pg.SettleSQL} }

// Check is one statement that fails where something could run code of a user when the
// transaction commits: triggers that can be deferred and fire in a session in replica
// role (trigger.c runs them with the session's rights), and cursors. A trigger with
// events that wait can neither be dropped nor altered, so it is seen if there are any.
const Check = `SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable) THEN 'twinspan: a cursor was left'
 WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND t.tgenabled OPERATOR(pg_catalog.=) ANY ('{A,R}'::pg_catalog."char"[]))
 THEN 'twinspan: a deferred trigger was left' ELSE '1' END::pg_catalog.int8`

// Problem says what an error of the server means if it is the fence's own, nil otherwise.
// subject is the table or object at which code ran.
func Problem(err error, role, subject string) *problem.Error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return nil
	}
	what := ""
	switch {
	case e.Code == "22P02" && strings.Contains(e.Message, `"twinspan: the fence was changed"`):
		what = "changes the function that keeps it within its owner's rights"
	case e.Code == stateLeft:
		what = "makes the transaction read-only, or gives up statements that the session has prepared"
	case e.Code == "22P02" && strings.Contains(e.Message, `"twinspan: a cursor was left"`):
		what = "leaves a cursor that would be read when the transaction commits"
	case e.Code == "22P02" && strings.Contains(e.Message, `"twinspan: a deferred trigger was left"`):
		return problem.New(problem.Diverged, "deferred_trigger_fires", "a constraint trigger on the secondary is enabled as ALWAYS or REPLICA and can be deferred, so it would run with the agent's rights").
			On(subject).WithHint("on the secondary, list them: SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgdeferrable AND tgenabled IN ('A', 'R'); disable them there (the primary's stay as they are), then resume the link")
	case e.Code == "25006" && strings.Contains(e.Message, "is the secondary of link"):
		return problem.New(problem.Diverged, "code_writes_on_twin", "a function that %s calls writes, and the secondary takes no writes: %s", subject, e.Message).On(subject).
			WithHint("what functions write on the primary comes by itself; have it write nothing where current_setting('session_replication_role') is 'replica', on the primary, then resume the link")
	default:
		return nil
	}
	return problem.New(problem.Diverged, "code_leaves_fence", "a function that %s calls %s", subject, what).On(subject).
		WithHint("it runs with the rights of role %s: look at the functions in the CHECKs, indexes and generated columns of %s, then resume the link", role, subject)
}

// GaveUp says whether an error means that statements which the session's client has
// prepared may be gone; what is rolled back does not bring them back.
func GaveUp(err *pgconn.PgError) bool { return err != nil && err.Code == stateLeft }

// AppendLiteral appends an SQL string that is read alike whatever the session's settings
// for strings are. It goes byte by byte, which is right in every encoding that a server
// can have; s holds no byte 0.
func AppendLiteral(dst, s []byte) []byte {
	dst = append(dst, 'E', '\'')
	for _, c := range s {
		if c == '\'' || c == '\\' {
			dst = append(dst, c)
		}
		dst = append(dst, c)
	}
	return append(dst, '\'')
}
