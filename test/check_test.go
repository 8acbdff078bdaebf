package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// check asks side a for what stands against a link, as "severity code object".
func check(t *testing.T, p *linktest.Pair, in api.CheckRequest) (lines []string) {
	t.Helper()
	found, err := p.A.Client.Check(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found.Findings {
		lines = append(lines, strings.TrimSpace(string(f.Severity)+" "+f.Code+" "+f.Object))
	}
	return lines
}

func has(t *testing.T, lines []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(lines, w) {
			t.Errorf("not found: %s\nin %s", w, strings.Join(lines, "\n   "))
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	t.Run("of pgbench is calm", func(t *testing.T) { checkPgbench(t, p) })
	t.Run("sees both sides", func(t *testing.T) { checkBothSides(t, p) })
	t.Run("objects that point outside", func(t *testing.T) { linkOutsideObjects(t, p) })
}

func checkPgbench(t *testing.T, p *linktest.Pair) {
	p.A.Server.CreateDatabase(t, "bench")
	program, _, err := instance.FindClient("pgbench", 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-i", "-q", p.A.Server.AppDSN("bench")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := check(t, p, api.CheckRequest{Database: "bench", Peer: "b"})
	for _, l := range lines {
		if !strings.HasPrefix(l, "informs ") {
			t.Errorf("alarming: %s", l)
		}
	}
	has(t, lines, "informs network_measured b", "informs seeding_estimate b", "informs table_without_key public.pgbench_history")
}

// checkBothSides plants a fault on each side, and accepts what warns.
func checkBothSides(t *testing.T, p *linktest.Pair) {
	p.A.Server.CreateDatabase(t, "sales")
	p.B.Server.CreateDatabase(t, "full")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`, `SELECT lo_create(0)`, `CREATE ROLE keeper LOGIN`, `ALTER TABLE t OWNER TO keeper`,
		`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER always BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
		ALTER TABLE t ENABLE ALWAYS TRIGGER always`, `CREATE FUNCTION in_c(int, int) RETURNS int LANGUAGE c STRICT AS '$libdir/autoinc', 'autoinc'`)
	pgtest.Exec(t, p.B.Server.AppDSN("full"), `CREATE TABLE t ()`)
	lines := check(t, p, api.CheckRequest{Database: "sales", Peer: "b"})
	has(t, lines, "informs trigger_fires_on_twin always on public.t", "warns function_in_c public.in_c(integer,integer)", "informs large_objects_in_passes pg_largeobject", "informs role_missing keeper")
	has(t, check(t, p, api.CheckRequest{Database: "sales", Peer: "b", PeerDatabase: "full"}), "blocks target_not_empty full")

	refused := func(in api.CreateLink, code string) {
		t.Helper()
		_, err := p.A.Client.CreateLink(t.Context(), in)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%+v: %v, want %s", in, err, code)
		}
	}
	link := api.CreateLink{Name: "sales", Database: "sales", Peer: "b"}
	refused(link, "function_in_c")
	blocked := link
	blocked.PeerDatabase, blocked.Accept = "full", []string{"target_not_empty", "function_in_c"}
	refused(blocked, "target_not_empty")
	alone := link
	alone.WithPasswords = true
	refused(alone, "roles_not_asked")
	link.Accept = []string{"function_in_c"}
	if _, err := p.A.Client.CreateLink(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	if got := pgtest.Query(t, p.B.Server.DSN("postgres"), `SELECT rolcanlogin FROM pg_roles WHERE rolname = 'keeper'`); len(got) != 1 || got[0][0] != "f" && got[0][0] != "false" {
		t.Errorf("keeper: %v", got)
	}
	notices(t, p.B, "sales", "role_created keeper", "NOLOGIN")
}

// notices asserts that a side of a link tells of something.
func notices(t *testing.T, side *linktest.Side, name, want, text string) {
	t.Helper()
	l, err := side.Client.Link(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Notices {
		if n.Code+" "+n.Subject == want && strings.Contains(n.Text, text) {
			return
		}
	}
	t.Errorf("side %s does not tell %s (%s): %+v", side.Name, want, text, l.Notices)
}

func login(t *testing.T, port int, user, password string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user='%s' password='%s' dbname=sales sslmode=require", port, user, password))
	if err == nil {
		conn.Close(t.Context())
	}
	return err
}

// TestRolesComeWithTheirPasswords logs in on the twin, once it is a database of
// its own, with the passwords that the primary knew.
func TestRolesComeWithTheirPasswords(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a, b := p.A.Server.DSN("sales"), p.B.Server.DSN("postgres")
	pgtest.Exec(t, a, `CREATE ROLE owning BYPASSRLS; CREATE ROLE reading NOINHERIT; CREATE ROLE there;
		CREATE ROLE "App ""User""" LOGIN PASSWORD 'correct horse' CONNECTION LIMIT 7 IN ROLE reading, pg_read_server_files; ALTER ROLE "App ""User""" SET work_mem = '9MB';
		SET password_encryption = md5; CREATE ROLE old_style LOGIN PASSWORD 'battery staple' VALID UNTIL '2099-01-01' IN ROLE reading; CREATE ROLE chief SUPERUSER LOGIN PASSWORD 'x';
		GRANT there TO reading WITH ADMIN OPTION; COMMENT ON ROLE owning IS 'owns';
		CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO owning; GRANT SELECT ON t TO reading; CREATE TABLE u (id int PRIMARY KEY); ALTER TABLE u OWNER TO chief`)
	pgtest.Exec(t, b, `CREATE ROLE there LOGIN`)
	_, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "sales", Peer: "b", CreateRoles: true, WithPasswords: true})
	if err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	const roles = `SELECT a.rolname, a.rolcanlogin, a.rolinherit, a.rolbypassrls, a.rolsuper, a.rolconnlimit, a.rolvaliduntil, s.setconfig, a.rolpassword, shobj_description(a.oid, 'pg_authid')
		FROM pg_authid a LEFT JOIN pg_db_role_setting s ON s.setrole = a.oid AND s.setdatabase = 0 WHERE a.rolname IN ('owning', 'reading', 'App "User"', 'old_style') ORDER BY 1`
	if x, y := fmt.Sprint(pgtest.Query(t, a, roles)), fmt.Sprint(pgtest.Query(t, b, roles)); x != y || !strings.Contains(x, "App") {
		t.Error("the roles differ") // without their verifiers
	}
	memberships := pgtest.Query(t, b, `SELECT r.rolname, m.rolname, admin_option FROM pg_auth_members x JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m ON m.oid = member
		WHERE m.rolname NOT LIKE 'pg\_%' ORDER BY 1, 2`)
	if got := fmt.Sprint(memberships); got != `[[reading App "User" f] [reading old_style f] [there reading t]]` && got != `[[reading App "User" false] [reading old_style false] [there reading true]]` {
		t.Error(got)
	}
	if got := pgtest.Query(t, b, `SELECT rolsuper::text, rolcanlogin::text FROM pg_roles WHERE rolname IN ('chief', 'there') ORDER BY rolname`); fmt.Sprint(got) != "[[false true] [false true]]" {
		t.Error(got)
	}
	for _, side := range []*linktest.Side{p.A, p.B} {
		notices(t, side, "sales", `role_created App "User"`, "with its password; not carried: membership in pg_read_server_files")
		notices(t, side, "sales", "role_created chief", "not carried: SUPERUSER")
	}
	for _, row := range pgtest.Query(t, a, `SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL`) {
		for what, text := range map[string]string{"agent a": p.A.Log(), "agent b": p.B.Log()} {
			if strings.Contains(text, row[0]) || strings.Contains(text, "SCRAM-SHA-256$") {
				t.Errorf("a verifier is in the log of %s", what)
			}
		}
	}
	if _, err := p.A.Client.DeleteLink(t.Context(), "sales", false); err != nil {
		t.Fatal(err)
	}
	askPasswords(t, p.B.Server)
	for user, password := range map[string]string{`App "User"`: "correct horse", "old_style": "battery staple"} {
		if err := login(t, p.B.Server.Port, user, password); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		if err := login(t, p.B.Server.Port, user, "wrong"); err == nil {
			t.Errorf("%s logs in with any password", user)
		}
	}
}

// TestPropertiesOfTheDatabaseAreCarried, but for what would be in the link's way.
func TestPropertiesOfTheDatabaseAreCarried(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a, b := p.A.Server.DSN("sales"), p.B.Server.DSN("other name")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE "od'd %s"; COMMENT ON DATABASE sales IS 'it''s 100% "ours" \ $$';
		ALTER DATABASE sales SET work_mem = '11MB'; ALTER DATABASE sales SET search_path = "a, b", 'c"d', public; ALTER DATABASE sales SET my.note = 'x''y\z %s';
		ALTER ROLE "od'd %s" IN DATABASE sales SET statement_timeout = '5s'; REVOKE ALL ON DATABASE sales FROM PUBLIC; GRANT CONNECT ON DATABASE sales TO "od'd %s" WITH GRANT OPTION;
		ALTER DATABASE sales CONNECTION LIMIT 33`, `ALTER DATABASE sales SET session_replication_role = replica`)
	lines := check(t, p, api.CheckRequest{Database: "sales", Peer: "b"})
	has(t, lines, "informs setting_left session_replication_role")
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "sales", Peer: "b", PeerDatabase: "other name"}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	const properties = `SELECT shobj_description(oid, 'pg_database'), datconnlimit, datacl,
		(SELECT array_agg(r.rolname || ':' || c.line ORDER BY 1) FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN LATERAL unnest(s.setconfig) c (line) WHERE s.setdatabase = d.oid),
		(SELECT array_agg(c.line ORDER BY c.line) FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c (line) WHERE s.setdatabase = d.oid
			AND c.line !~ '^(default_transaction_read_only|session_replication_role)=') FROM pg_database d WHERE datname = current_database()`
	if x, y := fmt.Sprint(pgtest.Query(t, a, properties)), fmt.Sprint(pgtest.Query(t, b, properties)); x != y || !strings.Contains(x, "11MB") {
		t.Errorf("the primary has %s\nthe twin has %s", x, y)
	}
	conn := pgtest.Conn(t, b)
	if _, err := conn.Exec(t.Context(), `SET default_transaction_read_only = off`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO public.t VALUES (1)`); err == nil {
		t.Error("the gate was opened by a setting that was carried")
	}
	// Others' objects: carried, or left where they are.
	if l, err := p.B.Client.Link(t.Context(), "sales"); err != nil || slices.ContainsFunc(l.Notices, func(n api.Notice) bool { return n.Code == "property_not_carried" }) {
		t.Errorf("%+v, %v", l.Notices, err)
	}
}

// linkOutsideObjects: foreign tables and event triggers are carried, publications
// stay. Passwords stay where they are not asked for.
func linkOutsideObjects(t *testing.T, p *linktest.Pair) {
	p.A.Server.CreateDatabase(t, "outside")
	a, b := p.A.Server.DSN("outside"), p.B.Server.DSN("outside")
	pgtest.Exec(t, a, `CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere'); CREATE FOREIGN TABLE distant (a int) SERVER far;
		CREATE USER MAPPING FOR postgres SERVER far OPTIONS (password 'hush'); CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION news FOR TABLE t;
		CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION e();
		CREATE ROLE app LOGIN PASSWORD 'secret'; GRANT SELECT ON t TO app`)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "outside", Database: "outside", Peer: "b", CreateRoles: true}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "outside", api.Replicating)
	if got := pgtest.Query(t, b, `SELECT rolcanlogin::text, rolpassword FROM pg_authid WHERE rolname = 'app'`); fmt.Sprint(got) != "[[true NULL]]" {
		t.Error(got)
	}
	notices(t, p.A, "outside", "role_created app", "without a password")
	got := pgtest.Query(t, b, `SELECT (SELECT count(*) FROM pg_foreign_table), (SELECT count(*) FROM pg_user_mappings), (SELECT count(*) FROM pg_event_trigger WHERE evtname = 'watch'),
		(SELECT count(*) FROM pg_publication WHERE pubname = 'news')`)
	if fmt.Sprint(got) != "[[1 1 1 0]]" {
		t.Error(got)
	}
	for _, side := range []*linktest.Side{p.A, p.B} {
		if strings.Contains(side.Log(), "hush") {
			t.Error("a password is in the log")
		}
	}
}

// askPasswords has the server ask everybody but its superuser for a password.
func askPasswords(t *testing.T, s *pgtest.Server) {
	t.Helper()
	rules := "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 md5\n"
	if err := os.WriteFile(filepath.Join(s.DataDir(), "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_reload_conf()`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if err := login(t, s.Port, "there", ""); err == nil {
			return errors.New("the server does not ask yet")
		}
		return nil
	})
}
