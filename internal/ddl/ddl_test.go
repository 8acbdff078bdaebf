package ddl

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ tag, sql, want string }{
		{"CREATE INDEX", `CREATE UNIQUE INDEX /* x */ CONCURRENTLY IF NOT EXISTS "concurrently" ON t (a)`, `CREATE UNIQUE INDEX /* x */  IF NOT EXISTS "concurrently" ON t (a)`},
		{"CREATE INDEX", `CREATE INDEX concurrently_not ON t (concurrently)`, `CREATE INDEX concurrently_not ON t (concurrently)`},
		{"DROP INDEX", `drop index concurrently a, b`, `drop index IF EXISTS  a, b`},
		{"DROP INDEX", `DROP INDEX IF EXISTS a`, `DROP INDEX IF EXISTS a`},
		{"DROP TABLE", `drop /* two */ table "table", b cascade`, `drop /* two */ table IF EXISTS "table", b cascade`},
		{"DROP TABLE", `DROP TABLE "if"`, `DROP TABLE IF EXISTS "if"`},
		{"DROP TRIGGER", `DROP TRIGGER x ON t`, `DROP TRIGGER IF EXISTS x ON t`},
		{"DROP TEXT SEARCH CONFIGURATION", `DROP TEXT SEARCH CONFIGURATION c`, `DROP TEXT SEARCH CONFIGURATION IF EXISTS c`},
		{"DROP LANGUAGE", `DROP PROCEDURAL LANGUAGE l`, `DROP PROCEDURAL LANGUAGE IF EXISTS l`},
		{"DROP USER MAPPING", `DROP USER MAPPING FOR u SERVER s`, `DROP USER MAPPING IF EXISTS FOR u SERVER s`},
		{"DROP CAST", `DROP CAST (a AS b)`, `DROP CAST IF EXISTS (a AS b)`},
		{"DROP OWNED", `DROP OWNED BY r`, `DROP OWNED BY r`},
		{"ALTER TABLE", `ALTER TABLE p DETACH PARTITION s.q CONCURRENTLY`, `ALTER TABLE p DETACH PARTITION s.q`},
		{"ALTER TABLE", `ALTER TABLE p DETACH PARTITION q finalize ;`, `ALTER TABLE p DETACH PARTITION q  ;`},
		{"ALTER TABLE", `ALTER TABLE p DETACH PARTITION finalize`, `ALTER TABLE p DETACH PARTITION finalize`},
		{"CREATE TABLE", `CREATE TABLE t (id int PRIMARY KEY USING INDEX TABLESPACE fast, tablespace text) TABLESPACE "fast"`, `CREATE TABLE t (id int PRIMARY KEY , tablespace text)`},
		{"ALTER TABLE", `ALTER TABLE t SET TABLESPACE fast`, ``},
		{"ALTER TABLE", `ALTER TABLE t ADD a int, SET TABLESPACE fast`, `ALTER TABLE t ADD a int`},
		{"ALTER TABLE", `ALTER TABLE t SET TABLESPACE fast, ADD a int`, `ALTER TABLE t  ADD a int`},
		{"ALTER TABLE", `ALTER TABLE ALL IN TABLESPACE pg_default OWNED BY me SET TABLESPACE other NOWAIT`, ``},
		{"CREATE FUNCTION", `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $a$ DROP INDEX CONCURRENTLY x $a$`, `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $a$ DROP INDEX CONCURRENTLY x $a$`},
		{"ALTER TABLE", `ALTER TABLE t OWNER TO SESSION_USER`, `ALTER TABLE t OWNER TO "logged in"`},
		{"CREATE SCHEMA", `CREATE SCHEMA AUTHORIZATION CURRENT_ROLE CREATE TABLE t (a name DEFAULT current_role)`, `CREATE SCHEMA AUTHORIZATION "r" CREATE TABLE t (a name DEFAULT current_role)`},
		{"GRANT", `GRANT SELECT ON t TO a, current_user, session_user GRANTED BY current_user`, `GRANT SELECT ON t TO a, "r", "logged in" GRANTED BY "r"`},
		{"CREATE POLICY", `CREATE POLICY p ON t TO current_user USING (a = current_user)`, `CREATE POLICY p ON t TO "r" USING (a = current_user)`},
		{"CREATE USER MAPPING", `CREATE USER MAPPING FOR USER SERVER s`, `CREATE USER MAPPING FOR "r" SERVER s`},
		{"CREATE VIEW", `CREATE VIEW v AS SELECT 1 FROM session_user ORDER BY current_user`, `CREATE VIEW v AS SELECT 1 FROM session_user ORDER BY current_user`},
		{"CREATE TABLE", `CREATE TABLE t (a text DEFAULT session_user CHECK (a IS DISTINCT FROM session_user))`, `CREATE TABLE t (a text DEFAULT session_user CHECK (a IS DISTINCT FROM session_user))`},
	} {
		change := Change{Tag: c.tag, SQL: Raw(c.sql), Conforming: true, Role: "r", Session: "logged in", Tablespaces: []Raw{"fast"}}
		if got := change.rewrite(false); got != c.want {
			t.Errorf("%s\nbecomes %q\nwant    %q", c.sql, got, c.want)
		}
	}
}

func TestNamedRoles(t *testing.T) {
	for sql, want := range map[string]string{
		`GRANT SELECT ON to_x TO bob, "Al ice" WITH GRANT OPTION`:                  "me bob Al ice",
		`REVOKE ALL ON bob FROM PUBLIC`:                                            "me",
		`ALTER TABLE bob OWNER TO Bob`:                                             "me bob",
		`CREATE SCHEMA AUTHORIZATION "Al ice"`:                                     "me Al ice",
		`ALTER DEFAULT PRIVILEGES FOR ROLE bob GRANT SELECT ON TABLES TO "Al ice"`: "me bob Al ice",
		`CREATE POLICY p ON t TO bob USING (a = 'Al ice')`:                         "me bob",
		`CREATE TABLE t (a text DEFAULT 'to bob') -- TO bob`:                       "me",
		`CREATE TABLE bob (a int)`:                                                 "me",
		`CREATE SCHEMA s AUTHORIZATION SESSION_USER`:                               "me us",
		`GRANT SELECT ON t TO bob, session_user`:                                   "me bob us",
		`ALTER TABLE t OWNER TO SESSION_USER`:                                      "me us",
		`CREATE TABLE t (a text DEFAULT session_user)`:                             "me",
	} {
		tag := strings.Join(strings.Fields(sql)[:2], " ")
		if first := strings.Fields(sql)[0]; first == "GRANT" || first == "REVOKE" {
			tag = first
		}
		c := Change{SQL: Raw(sql), Tag: tag, Conforming: true, Role: "me", Session: "us", Roles: []Raw{"bob", "Al ice"}}
		if got := strings.Join(c.NamedRoles(), " "); got != want {
			t.Errorf("%s names %q, want %q", sql, got, want)
		}
	}
}

func TestRenamedSchemas(t *testing.T) {
	c := Change{Tag: "ALTER SCHEMA", SQL: `ALTER SCHEMA Old RENAME TO "New ""er"`, Conforming: true}
	if got := c.RenamedSchemas(); len(got) != 1 || got["old"] != `New "er` {
		t.Errorf("renamed: %v", got)
	}
	c.SQL = `ALTER SCHEMA old OWNER TO x`
	if got := c.RenamedSchemas(); got != nil {
		t.Errorf("renamed: %v", got)
	}
}

func payload(sql string) []byte {
	raw := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	return fmt.Appendf(nil, `{"tag": "CREATE TABLE", "sql": %q, "conforming": true, "role": %q, "settings": {"search_path": %q, "default_table_access_method": %q},
		"objects": [%q], "after": [%q]}`, raw(sql), raw("o'wner"), raw(`"$user", public`), raw("heap"), raw("public.t"), raw("UPDATE x"))
}

func TestScript(t *testing.T) {
	c, err := Parse(payload("CREATE TABLE t (a text DEFAULT '\xe9')"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject() != "public.t" {
		t.Errorf("subject %q", c.Subject())
	}
	s := c.Script(Rights{Name: "abcxyz", Ordinary: []Setting{{"lc_monetary", "C.UTF-8"}, {"search_path", "ordinary"}, {"statement_timeout", "1min"}}, Aside: "put aside"})
	call := s.Statements[s.Main]
	for _, part := range []string{
		"SELECT pg_temp.twinspan_change_abc(", "ARRAY['CREATE TABLE t (a text DEFAULT ''\xe9'')']", // bytes stay what they are
		`ARRAY['search_path', '"$user", public, pg_temp']`, `ARRAY['lc_monetary', 'C.UTF-8']`,
	} {
		if !strings.Contains(call, part) {
			t.Errorf("the call lacks %q: %s", part, call)
		}
	}
	for _, part := range []string{"heap", "ordinary", "1min"} {
		if strings.Contains(call, part) {
			t.Errorf("the call has %q: %s", part, call)
		}
	}
	if !strings.Contains(s.Statements[0], "SECURITY DEFINER") {
		t.Errorf("no fence: %s", s.Statements[0])
	}
	if owner := s.Statements[s.Main-1]; owner != `ALTER FUNCTION pg_temp.twinspan_change_abc OWNER TO "o'wner"` {
		t.Errorf("before it comes %q", owner)
	}
	// What fills rows comes after it, with no trigger in the way, by another function: the code that the first has run
	// may have changed that.
	filled := s.Main + 1 + len(Tidy) + 4
	if s.Statements[filled-3] != "put aside" || !strings.Contains(s.Statements[filled-2], "CREATE FUNCTION pg_temp.twinspan_change_xyz(") || !strings.Contains(s.Statements[filled-2], "SECURITY DEFINER") ||
		s.Statements[filled-1] != `ALTER FUNCTION pg_temp.twinspan_change_xyz OWNER TO "o'wner"` || strings.Contains(s.Statements[filled], "twinspan_change_abc") || !strings.Contains(s.Statements[filled], "ARRAY['UPDATE x']") || strings.Contains(s.Statements[filled], "CREATE TABLE t") {
		t.Errorf("then come %q", s.Statements[filled-1:])
	}
	if !slices.Equal(s.Statements[s.Main+1:s.Main+1+len(Tidy)], Tidy) {
		t.Errorf("behind it comes %q", s.Statements[s.Main+1:])
	}
}

func TestSettings(t *testing.T) {
	c := Change{Tag: "CREATE FUNCTION", Conforming: true, Role: "r", SQL: `CREATE FUNCTION f() RETURNS int LANGUAGE sql SET work_mem FROM CURRENT SET "app.x" from current set lock_timeout FROM CURRENT SET role FROM CURRENT AS 'select 1'`,
		Settings: map[string]Raw{"work_mem": "17MB", "app.x": "1", "lock_timeout": "7s", "role": "x", "TimeZone": "UTC", "statement_timeout": "1s", "default_toast_compression": "pglz", "geqo": "off"}}
	needed, asked := c.settings([]Setting{{"timezone", "Asia/Tokyo"}, {"lock_timeout", "9s"}}) // names in whatever letters
	want := []Setting{{"check_function_bodies", "off"}, {"TimeZone", "UTC"}, {"app.x", "1"}, {"lock_timeout", "7s"}, {"work_mem", "17MB"}}
	if !slices.Equal(needed, want) {
		t.Errorf("needed: %v", needed)
	}
	if want := append(slices.Clone(planning), Setting{"geqo", "off"}); !slices.Equal(asked, want) {
		t.Errorf("asked: %v", asked)
	}
}

func TestOneStatementAlone(t *testing.T) {
	for sql, want := range map[string]bool{
		`CREATE TABLE t (a int)`: true, `CREATE TABLE t (a int) ; `: true, "CREATE TABLE t (a int);; -- ;\n ; ": true, `CREATE TABLE t (a text DEFAULT ';')`: true,
		`CREATE TABLE t (); DROP TABLE u`:                                                   false,
		`CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)`:            true,
		`CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END`: true,
	} {
		_, err := Parse(fmt.Appendf(nil, `{"tag": "X", "sql": %q, "conforming": true, "role": "cg=="}`, base64.StdEncoding.EncodeToString([]byte(sql))))
		if (err == nil) != want {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestParseRefusesWhatIsNotWhole(t *testing.T) {
	for _, p := range []string{``, `{}`, `{"tag": "X"}`, `{"tag": "X", "sql": "?"}`, `[]`} {
		if _, err := Parse([]byte(p)); err == nil {
			t.Errorf("%s is taken", p)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add(payload("CREATE INDEX CONCURRENTLY i ON t (a)"))
	f.Add([]byte(`{"tag": "DROP INDEX", "sql": "RFJPUCBJTkRFWCBhOyAkJCAvKg==", "role": "cg==", "tablespaces": ["cg=="]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		c.Script(Rights{Name: "a"})
		c.NamedRoles()
		c.RenamedSchemas()
	})
}

func FuzzScan(f *testing.F) {
	for _, sql := range []string{`CREATE TABLE "a" (b text DEFAULT E'\'' || $x$ $$ $x$)`, `/* /* */ -- */ a'`, `$$`, `"`, `e'\`, `$1$2$`, "é$x"} {
		f.Add(sql, true)
		f.Add(sql, false)
	}
	f.Fuzz(func(t *testing.T, sql string, conforming bool) {
		at := 0
		for _, token := range scan(sql, conforming) {
			if token.start < at || token.end <= token.start || token.end > len(sql) {
				t.Fatalf("token %+v behind %d in %q", token, at, sql)
			}
			at = token.end
		}
	})
}

func TestWhatTheCatalogsSay(t *testing.T) {
	for _, c := range []struct {
		change Change
		want   string
	}{
		{Change{Tag: "GRANT", SQL: `GRANT SELECT (a, "on"), UPDATE ON TABLE x, "to" TO "on", PUBLIC WITH GRANT OPTION`, On: "TABLE public.x"},
			`GRANT SELECT (a, "on"), UPDATE ON TABLE public.x TO "on", PUBLIC WITH GRANT OPTION`},
		{Change{Tag: "REVOKE", SQL: `revoke grant option for execute on function f(int, text) from r cascade`, On: "FUNCTION public.g()"},
			`revoke grant option for execute on FUNCTION public.g() from r cascade`},
		{Change{Tag: "CREATE TABLE", SQL: `CREATE TABLE a PARTITION OF p (k DEFAULT (1)) FOR VALUES FROM (now(), ')') TO (MAXVALUE, f(1)) WITH (fillfactor = 70)`, Bound: "FOR VALUES FROM (1) TO (2)"},
			`CREATE TABLE a PARTITION OF p (k DEFAULT (1)) FOR VALUES FROM (1) TO (2) WITH (fillfactor = 70)`},
		{Change{Tag: "ALTER TABLE", SQL: `ALTER TABLE p ATTACH PARTITION a FOR VALUES IN (now())`, Bound: "FOR VALUES IN ('x')"}, `ALTER TABLE p ATTACH PARTITION a FOR VALUES IN ('x')`},
		{Change{Tag: "CREATE EXTENSION", SQL: `CREATE EXTENSION IF NOT EXISTS x SCHEMA version;`, Version: "1.2"}, `CREATE EXTENSION IF NOT EXISTS x SCHEMA version VERSION '1.2';`},
		{Change{Tag: "CREATE EXTENSION", SQL: `CREATE EXTENSION x VERSION "1" CASCADE`, Version: "1.2"}, `CREATE EXTENSION x VERSION '1.2' CASCADE`},
		{Change{Tag: "ALTER EXTENSION", SQL: `ALTER EXTENSION x UPDATE`, Version: "1.2"}, `ALTER EXTENSION x UPDATE TO '1.2'`},
		{Change{Tag: "ALTER EXTENSION", SQL: `ALTER EXTENSION x UPDATE TO '1.1'`, Version: "1.2"}, `ALTER EXTENSION x UPDATE TO '1.2'`},
		{Change{Tag: "ALTER EXTENSION", SQL: `ALTER EXTENSION x SET SCHEMA s`, Version: "1.2"}, `ALTER EXTENSION x SET SCHEMA s`},
	} {
		c.change.Conforming = true
		if got := c.change.rewrite(true); got != c.want {
			t.Errorf("%s\nbecomes %q\nwant    %q", c.change.SQL, got, c.want)
		}
	}
}

// What no function with its owner's rights can say of another is said without the fence.
func TestRoleSettingsOfFunctions(t *testing.T) {
	for sql, want := range map[string]string{
		`CREATE FUNCTION f(a int DEFAULT 1) RETURNS int SET role = "Some ""One" LANGUAGE sql AS 'SET role x' SET work_mem TO '1MB';`: `CREATE FUNCTION f(a int DEFAULT 1) RETURNS int  LANGUAGE sql AS 'SET role x' SET work_mem TO '1MB';`,
		`CREATE PROCEDURE p() SET SESSION AUTHORIZATION me SET role FROM CURRENT LANGUAGE sql AS ''`:                                 `CREATE PROCEDURE p()   LANGUAGE sql AS ''`,
		`ALTER FUNCTION f(int) SET role TO me`:                                          "",
		`ALTER FUNCTION f(int) RESET ROLE;`:                                             "",
		`ALTER ROUTINE "set role"(int) SET ROLE me STABLE`:                              `ALTER ROUTINE "set role"(int)  STABLE`,
		`ALTER FUNCTION a."B" RESET session_authorization COST 3 SET ROLE FROM CURRENT`: `ALTER FUNCTION a."B"  COST 3`,
		`ALTER FUNCTION f RESET ROLE`:                                                   "",
	} {
		tag := strings.Join(strings.Fields(sql)[:2], " ")
		c := Change{Tag: tag, SQL: Raw(sql), Conforming: true, Role: "me", Objects: []Raw{"public.f(integer)"}, Config: &[]Raw{"work_mem=1MB", `role=Some "One`}}
		if got := c.rewrite(false); got != want {
			t.Errorf("%s becomes %q, want %q", sql, got, want)
		}
		s := c.Script(Rights{Name: "abcxyz"})
		set := `UPDATE pg_catalog.pg_proc SET proconfig = ARRAY['work_mem=1MB', 'role=Some "One']::pg_catalog.text[] WHERE oid OPERATOR(pg_catalog.=) 'public.f(integer)'::pg_catalog.regprocedure`
		if last := strings.TrimSpace(s.Statements[len(s.Statements)-1]); last != set {
			t.Errorf("%s ends with %s", sql, last)
		}
	}
}
