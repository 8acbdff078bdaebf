package assess_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"io"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// planted are faults within a database: what makes one, and how it is found.
var planted = []struct{ sql, want string }{
	{`CREATE TABLE keyless (a int); CREATE TABLE "Odd Name" (a int)`, `informs table_without_key public.keyless`},
	{`SELECT 1`, `informs table_without_key public."Odd Name"`},
	{`CREATE TABLE nothing (a int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING`, `informs table_without_key public.nothing`},
	{`CREATE TABLE full_already (a int); ALTER TABLE full_already REPLICA IDENTITY FULL`, ``},
	{`CREATE FUNCTION other(internal) RETURNS table_am_handler LANGUAGE internal AS 'heap_tableam_handler'; CREATE ACCESS METHOD columns TYPE TABLE HANDLER other;
		CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE fine (a int PRIMARY KEY) USING heap_too; CREATE TABLE columnar (a int PRIMARY KEY) USING columns`,
		`warns access_method_undecoded public.columnar`},
	{`CREATE FUNCTION refuses() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF current_setting('application_name') ~ '^twinspan/' THEN INSERT INTO watched_by_name VALUES (tg_tag); END IF; END $$;
		CREATE EVENT TRIGGER refuses ON ddl_command_end EXECUTE FUNCTION refuses()`, ``},
	{`CREATE UNLOGGED TABLE scratch (a int)`, `informs unlogged_table public.scratch`},
	{`CREATE TYPE pair AS (a int, b text); CREATE TABLE as_text (a int PRIMARY KEY, p pair, r regclass)`, `informs types_as_text public.as_text`},
	{`CREATE TABLE snap (a oid PRIMARY KEY, bound pg_node_tree)`, `blocks type_without_input public.snap`},
	{`SELECT lo_create(0), lo_create(0)`, `informs large_objects_in_passes pg_largeobject`},
	{`CREATE TABLE watched (a int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	  CREATE TRIGGER plain BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION f();
	  CREATE TRIGGER always BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE watched ENABLE ALWAYS TRIGGER always`,
		`informs trigger_fires_on_twin always on public.watched`},
	{`CREATE TRIGGER replica AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE watched ENABLE REPLICA TRIGGER replica`,
		`informs trigger_fires_on_twin replica on public.watched`},
	{`CREATE TABLE ruled (a int PRIMARY KEY); CREATE RULE elsewhere AS ON INSERT TO ruled DO ALSO NOTIFY x; ALTER TABLE ruled ENABLE ALWAYS RULE elsewhere`,
		`informs rule_fires_on_twin elsewhere on public.ruled`},
	{`CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE hashed (m mood) PARTITION BY HASH (m)`, `blocks partitioned_by_hash_of_enum public.hashed`},
	{`CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE loosely (a text COLLATE loose PRIMARY KEY)`,
		`informs collation_nondeterministic public.loose`},
	{`CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER usual ON sql_drop EXECUTE FUNCTION e();
	  CREATE EVENT TRIGGER "Always" ON sql_drop EXECUTE FUNCTION e(); ALTER EVENT TRIGGER "Always" ENABLE ALWAYS`, `informs event_trigger_fires_on_twin "Always"`},
	{`CREATE FUNCTION of_app() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; ALTER FUNCTION of_app() OWNER TO shop; CREATE EVENT TRIGGER of_app ON sql_drop EXECUTE FUNCTION of_app()`,
		`warns event_trigger_of_role of_app`},
	{`CREATE FUNCTION valid(text[], oid) RETURNS bool LANGUAGE sql AS 'SELECT true'; ALTER FUNCTION valid(text[], oid) OWNER TO shop; CREATE FOREIGN DATA WRAPPER lax VALIDATOR valid; CREATE FOREIGN DATA WRAPPER bare`,
		`warns fdw_validator_of_role lax`},
	{`CREATE FUNCTION compares(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 0; END'; ALTER FUNCTION compares(int, int) OWNER TO shop; CREATE OPERATOR CLASS lax FOR TYPE int USING btree AS FUNCTION 1 compares(int, int);
		CREATE OPERATOR CLASS unused FOR TYPE int USING btree AS FUNCTION 1 compares(int, int); CREATE TABLE parted (a int) PARTITION BY RANGE (a lax); CREATE TYPE span AS RANGE (SUBTYPE = int, SUBTYPE_OPCLASS = unused)`,
		`warns operator_class_of_role public.lax`},
	{`CREATE FUNCTION in_c(int, int) RETURNS int LANGUAGE c STRICT AS '$libdir/autoinc', 'autoinc'`, `warns function_in_c public.in_c(integer,integer)`},
	{`CREATE SCHEMA cron; CREATE TABLE cron.job (id int PRIMARY KEY)`, `informs jobs_not_carried cron.job`},
	{`CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE distant (a int) SERVER far`, `informs foreign_server far`},
	{`CREATE PUBLICATION news FOR TABLE watched`, `informs publication_not_carried news`},
	{`CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false); ALTER SUBSCRIPTION feed ENABLE`, `warns subscription_not_carried feed`},
}

func TestFaultsOfADatabase(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("max_logical_replication_workers", "0"))
	name := s.Database(t)
	dsn := s.DSN(name)
	location := pgtest.Dir(t)
	owner, err := os.Stat(s.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	give(t, location, owner)
	pgtest.Exec(t, dsn, `CREATE TABLESPACE fast LOCATION `+sqlname.Literal(location))
	pgtest.Exec(t, dsn, `CREATE TABLE placed (a int PRIMARY KEY) TABLESPACE fast`)
	want := []string{`informs tablespace_not_kept public.placed`}
	for _, p := range planted {
		pgtest.Exec(t, dsn, p.sql)
		if p.want != "" {
			want = append(want, p.want)
		}
	}
	t.Cleanup(func() {
		pgtest.Exec(t, dsn, `SET default_transaction_read_only = off`, `ALTER SUBSCRIPTION feed DISABLE; ALTER SUBSCRIPTION feed SET (slot_name = NONE)`, `DROP SUBSCRIPTION feed`,
			`DROP TABLE placed`, `DROP TABLESPACE fast`)
	})
	pgtest.Exec(t, dsn, `ALTER DATABASE `+sqlname.Quote(name)+` SET default_transaction_read_only = on; ALTER DATABASE `+sqlname.Quote(name)+` SET work_mem = '7MB'`)
	want = append(want, `informs setting_left default_transaction_read_only`)
	pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE `+sqlname.Quote(name)+` IS_TEMPLATE true; UPDATE pg_database SET datcollversion = 'ancient' WHERE datname = `+sqlname.Literal(name))
	t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE `+sqlname.Quote(name)+` IS_TEMPLATE false`) })
	want = append(want, `blocks database_is_template `+name, `warns collation_stale `+name)
	found := primary(t, dsn, newestDump)
	expect(t, found, want...)
	if f := one(t, found, "types_as_text"); !strings.Contains(f.Why, "pair") || !strings.Contains(f.Why, "regclass") {
		t.Errorf("%+v", f)
	}
	// What a remedy says can be done, and helps.
	for _, code := range []string{"trigger_fires_on_twin", "rule_fires_on_twin", "event_trigger_fires_on_twin", "unlogged_table"} {
		f := one(t, found, code)
		pgtest.Exec(t, dsn, `SET default_transaction_read_only = off`, f.Remedy)
		if slices.ContainsFunc(primary(t, dsn, newestDump), func(g assess.Finding) bool { return g.Code == code && g.Object == f.Object }) {
			t.Errorf("%s is there after: %s", code, f.Remedy)
		}
	}
}

func TestManyObjectsAreNamedInPart(t *testing.T) {
	dsn := pgtest.Shared(t).DSN(pgtest.Shared(t).Database(t))
	pgtest.Exec(t, dsn, `DO 'BEGIN FOR i IN 1..30 LOOP EXECUTE ''CREATE TABLE t'' || lpad(i::text, 2, ''0'') || '' ()''; END LOOP; END'`)
	var listed []assess.Finding
	for _, f := range primary(t, dsn, newestDump) {
		if f.Code == "table_without_key" {
			listed = append(listed, f)
		}
	}
	if len(listed) != 25 || listed[0].Object != "public.t01" || !strings.Contains(listed[24].Why, "so are 5 others") {
		t.Errorf("%d: %+v", len(listed), listed[len(listed)-1])
	}
}

func TestSchemaOfAnother(t *testing.T) {
	dsn := pgtest.Shared(t).DSN(pgtest.Shared(t).Database(t))
	pgtest.Exec(t, dsn, `CREATE SCHEMA twinspan`)
	expect(t, primary(t, dsn, newestDump), "blocks schema_taken twinspan")
}

func TestFaultsOfThePrimaryServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("max_replication_slots", "3"), pgtest.WithSetting("max_wal_senders", "2"), pgtest.WithSetting("max_slot_wal_keep_size", "1MB"),
		pgtest.WithSetting("max_connections", "12"), pgtest.WithSetting("superuser_reserved_connections", "0"), pgtest.WithSetting("max_locks_per_transaction", "10"),
		pgtest.WithSetting("max_prepared_transactions", "0"))
	name := s.Database(t)
	dsn := s.DSN(name)
	pgtest.Exec(t, dsn, `SELECT pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b', true);
		CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER twinspan_gate ON ddl_command_start EXECUTE FUNCTION public.f()`)
	for i := range 10 {
		pgtest.Exec(t, dsn, fmt.Sprintf(`DO 'BEGIN FOR i IN 1..10 LOOP EXECUTE ''CREATE TABLE t%d_'' || i || '' (a int PRIMARY KEY)''; END LOOP; END'`, i))
	}
	sender, err := parse(t, dsn).ConnectReplication(testContext(t), pg.Session{Name: "taken"})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close(testContext(t))
	report := look(t, assess.Primary{DSN: parse(t, dsn), DumpMajor: s.Major - 1})
	expect(t, report.Findings, "informs slot_wal_limited max_slot_wal_keep_size", "blocks slots_used_up max_replication_slots", "blocks senders_used_up max_wal_senders",
		"blocks pg_dump_too_old pg_dump", "warns connections_short max_connections", "warns locks_short max_locks_per_transaction",
		"informs slot_abandoned b", "blocks database_is_secondary "+name)
	for code, word := range map[string]string{"slots_used_up": "2 of 3", "senders_used_up": "1 of 2", "slot_wal_limited": "1MB", "locks_short": "100 tables"} {
		if f := one(t, report.Findings, code); !strings.Contains(f.Why, word) {
			t.Errorf("%s: %s", code, f.Why)
		}
	}
	if report.Facts.KeepLog != 1<<20 {
		t.Errorf("%+v", report.Facts)
	}
	for _, code := range []string{"slots_used_up", "senders_used_up", "connections_short", "locks_short"} {
		statement, _, _ := strings.Cut(one(t, report.Findings, code).Remedy, ";")
		pgtest.Exec(t, dsn, statement)
	}
	pgtest.Exec(t, dsn, one(t, report.Findings, "slot_abandoned").Remedy[:len("SELECT pg_drop_replication_slot('b')")])
}

func TestLowWalLevelAndPlainRole(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("wal_level", "replica"))
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE "Odd Name" LOGIN PASSWORD 'odd'`)
	plain := s.DSNOf("Odd Name", "odd", "postgres")
	found := primary(t, plain, newestDump)
	expect(t, found, "blocks wal_level_low wal_level", "warns maintenance_database postgres")
	there := secondary(t, plain, assess.Target{Database: "twin"})
	expect(t, there, "blocks not_superuser Odd Name", "warns wal_level_too_low wal_level", "informs space_unknown data_directory")
	statement, _, _ := strings.Cut(one(t, there, "not_superuser").Remedy, ";")
	pgtest.Exec(t, s.DSN("postgres"), statement)
	statement, _, _ = strings.Cut(one(t, found, "wal_level_low").Remedy, ";")
	pgtest.Exec(t, s.DSN("postgres"), statement)
	expect(t, primary(t, plain, newestDump), "blocks wal_level_low wal_level", "warns maintenance_database postgres") // until it is started anew
}

// A role that owns its tables may publish them, and is told what it may not do.
func TestPlainOwnerOfThePrimary(t *testing.T) {
	s := pgtest.Start(t)
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE owning LOGIN REPLICATION PASSWORD 'owning'`, `CREATE DATABASE owned OWNER owning`)
	plain := s.DSNOf("owning", "owning", "owned")
	pgtest.Exec(t, plain, `CREATE TABLE t (id int PRIMARY KEY)`)
	expect(t, primary(t, plain, newestDump), "warns event_triggers_refused owning")
	pgtest.Exec(t, s.DSN("owned"), `CREATE TABLE of_another (id int PRIMARY KEY)`)
	pgtest.Exec(t, plain, `SELECT lo_create(0)`)
	found := primary(t, plain, newestDump)
	expect(t, found, "blocks publishing_refused owned", "blocks large_objects_unreadable pg_largeobject", "informs large_objects_in_passes pg_largeobject")
	pgtest.Exec(t, s.DSN("owned"), strings.TrimPrefix(one(t, found, "large_objects_unreadable").Remedy, "as a superuser: "), `ALTER TABLE of_another OWNER TO owning`)
	expect(t, primary(t, plain, newestDump), "informs large_objects_in_passes pg_largeobject", "warns event_triggers_refused owning")
}

func TestEventTriggersAreOff(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithMajor(17), pgtest.WithSetting("event_triggers", "off"))
	found := primary(t, s.DSN("postgres"), newestDump)
	expect(t, found, "warns event_triggers_off event_triggers", "warns maintenance_database postgres")
	for _, statement := range strings.Split(one(t, found, "event_triggers_off").Remedy, "; ") {
		pgtest.Exec(t, s.DSN("postgres"), statement)
	}
}

// TestRightsAreTried: what the server says to a link, it says to the check.
func TestRightsAreTried(t *testing.T) {
	s := pgtest.Start(t)
	name := s.Database(t)
	dsn := s.DSN(name)
	pgtest.Exec(t, dsn, `CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not in business hours''; END';
		CREATE EVENT TRIGGER hours ON ddl_command_start EXECUTE FUNCTION public.f(); ALTER EVENT TRIGGER hours ENABLE ALWAYS`)
	found := primary(t, dsn, newestDump)
	expect(t, found, "blocks publishing_refused "+name, "informs event_trigger_fires_on_twin hours")
	if f := one(t, found, "publishing_refused"); !strings.Contains(f.Why, "not in business hours") {
		t.Errorf("%+v", f)
	}
	statement := `ALTER EVENT TRIGGER hours DISABLE`
	if !strings.Contains(one(t, found, "publishing_refused").Remedy, "ALTER EVENT TRIGGER ... DISABLE") {
		t.Errorf("%+v", found)
	}
	pgtest.Exec(t, dsn, statement)
	expect(t, primary(t, dsn, newestDump))

	slots := filepath.Join(s.DataDir(), "pg_replslot")
	if err := os.Chmod(slots, 0o500); err != nil {
		t.Fatal(err)
	}
	found = primary(t, dsn, newestDump)
	if err := os.Chmod(slots, 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, found, "blocks slot_refused "+name)
}

func TestTransactionsThatKeepASlotWaiting(t *testing.T) {
	s := pgtest.Start(t)
	name := s.Database(t)
	dsn := s.DSN(name)
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (a int PRIMARY KEY)`)
	conn := pgtest.Conn(t, dsn)
	if _, err := conn.Exec(testContext(t), `BEGIN; INSERT INTO public.t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	object := fmt.Sprintf("transaction_open process %d", conn.PgConn().PID())
	expect(t, primary(t, dsn, newestDump), "informs "+object)
	report := look(t, assess.Primary{DSN: parse(t, dsn), DumpMajor: newestDump, Long: time.Nanosecond})
	expect(t, report.Findings, "warns "+object)
	_, statement, _ := strings.Cut(one(t, report.Findings, "transaction_open").Remedy, ", or ")
	pgtest.Exec(t, dsn, statement)
	pgtest.Eventually(t, time.Minute, func() error {
		if found := primary(t, dsn, newestDump); len(found) != 1 {
			return fmt.Errorf("%v", codes(found))
		}
		return nil
	})
	pgtest.Exec(t, dsn, `BEGIN; INSERT INTO public.t VALUES (2); PREPARE TRANSACTION 'half done'`)
	found := primary(t, dsn, newestDump)
	expect(t, found, "warns prepared_transaction half done")
	statement, _, _ = strings.Cut(one(t, found, "prepared_transaction").Remedy, " or ")
	pgtest.Exec(t, dsn, statement)
	expect(t, primary(t, dsn, newestDump))
}

func TestFaultsOfTheSecondary(t *testing.T) {
	setting := "max_replication_slots"
	if pgtest.Shared(t).Major >= 18 {
		setting = "max_active_replication_origins"
	}
	s := pgtest.Start(t, pgtest.WithSetting(setting, "2"), pgtest.WithSetting("max_connections", "8"), pgtest.WithSetting("superuser_reserved_connections", "0"))
	pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_replication_origin_create('a'), pg_replication_origin_create('b');
		CREATE ROLE weak LOGIN; CREATE ROLE sound LOGIN PASSWORD 'x'; CREATE ROLE family`, `CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`,
		`CREATE DATABASE closed ALLOW_CONNECTIONS false`, `CREATE DATABASE full_one`)
	pgtest.Exec(t, s.DSN("full_one"), `CREATE TABLE t ()`)
	source := assess.Source{Database: "x", SystemID: "1", Major: 18, Encoding: "UTF8", Collate: "C.UTF-8", CType: "C.UTF-8", Provider: "c", Bytes: 1 << 60, Extensions: []assess.Extension{
		{Name: "no_such_thing", Version: "1"}, {Name: "hstore", Version: "0.9"}, {Name: "citext", Version: "99.1"},
	}}
	member := []pg.Membership{{Role: "family"}}
	needs := assess.Needs{
		Roles: []pg.Role{{Name: "absent", Direct: true, Login: true}, {Name: "weak", Login: true, Inherit: true, BypassRLS: true, Password: true, MemberOf: member},
			{Name: "sound", Login: true, Inherit: true, Password: true}, {Name: "family", Inherit: true}},
		Settings: []pg.Setting{{Name: "work_mem", Value: "4MB"}, {Name: "search_path", Value: `a, "b c"`}, {Name: "no_such_setting", Value: "1"}, {Name: "my.own", Value: "x"}},
		Collations: []assess.Collation{{Name: "", BuiltIn: true, Provider: "c", Collate: "C.UTF-8", CType: "C.UTF-8"}, {Name: `pg_catalog."xx_YY.utf8"`, BuiltIn: true, Provider: "c", Collate: "xx_YY.utf8", CType: "xx_YY.utf8"},
			{Name: "public.german", Provider: "i", Collate: "de", CType: "de", Version: "1.2"}, {Name: "public.lost", Provider: "c", Collate: "zz_ZZ", CType: "zz_ZZ"}},
	}
	found := secondary(t, s.DSN("postgres"), assess.Target{Source: source, Needs: needs, Database: "narrow"})
	want := []string{"blocks origins_used_up " + setting, "blocks extension_missing no_such_thing", "informs extension_newer hstore", "warns extension_older citext",
		"warns connections_short max_connections", "blocks space_short data_directory", "warns encoding_differs narrow", "informs locale_differs narrow",
		"warns setting_not_carried no_such_setting", `blocks collation_missing pg_catalog."xx_YY.utf8"`, "blocks collation_missing public.lost", "informs collation_version_differs public.german",
		"informs role_missing absent", "informs role_differs weak", "informs role_without_password weak"}
	if s.Major < 18 {
		want = append(want, "informs version_below_primary server")
	}
	expect(t, found, want...)
	if f := one(t, found, "origins_used_up"); !strings.Contains(f.Why, "2 of 2") {
		t.Errorf("%+v", f)
	}
	_, statements, _ := strings.Cut(one(t, found, "role_differs").Remedy, "on the secondary: ")
	pgtest.Exec(t, s.DSN("postgres"), statements)
	plain := assess.Source{Database: "x", SystemID: "1"}
	for database, code := range map[string]string{"full_one": "target_not_empty", "closed": "target_closed", "template1": "database_name_reserved"} {
		expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: plain, Database: database}), "blocks "+code+" "+database,
			"blocks origins_used_up "+setting, "warns connections_short max_connections")
	}
	if s.Major < 17 {
		builtin := assess.Needs{Collations: []assess.Collation{{BuiltIn: true, Provider: "b", Collate: "C.UTF-8", CType: "C.UTF-8"}}}
		expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: plain, Needs: builtin, Database: "twin"}), "warns locale_differs twin",
			"blocks origins_used_up "+setting, "warns connections_short max_connections")
	}
	lost := assess.Needs{Collations: []assess.Collation{{BuiltIn: true, Provider: "c", Collate: "xx_YY.UTF-8", CType: "xx_YY.UTF-8"}}}
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: plain, Needs: lost, Database: "twin"}), "blocks locale_missing xx_YY.UTF-8",
		"blocks origins_used_up "+setting, "warns connections_short max_connections")
}

// TestRolesThatADatabaseNeeds: those named in it, those above them, and those below
// who use it through them; nobody else.
func TestRolesThatADatabaseNeeds(t *testing.T) {
	s := pgtest.Start(t)
	name := s.Database(t)
	dsn := s.DSN(name)
	pgtest.Exec(t, dsn, `CREATE ROLE owning; CREATE ROLE reading; CREATE ROLE above; CREATE ROLE "App User" LOGIN PASSWORD 'secret' IN ROLE reading; CREATE ROLE stranger LOGIN;
		CREATE ROLE tuned LOGIN; CREATE ROLE connecting LOGIN; CREATE ROLE admin SUPERUSER IN ROLE reading; GRANT above TO owning; GRANT pg_monitor TO "App User";
		CREATE TABLE public.t (a int PRIMARY KEY); ALTER TABLE public.t OWNER TO owning; GRANT SELECT ON public.t TO reading`,
		`ALTER ROLE tuned IN DATABASE `+sqlname.Quote(name)+` SET work_mem = '5MB'`, `GRANT CONNECT ON DATABASE `+sqlname.Quote(name)+` TO connecting`)
	roles := look(t, assess.Primary{DSN: parse(t, dsn), DumpMajor: newestDump}).Needs.Roles
	var names []string
	for _, r := range roles {
		names = append(names, r.Name)
		if r.Verifier != "" {
			t.Errorf("a check read the password of %s", r.Name)
		}
		if r.Name == "App User" && (!r.Login || !r.Password || len(r.MemberOf) != 2) {
			t.Errorf("%+v", r)
		}
	}
	slices.Sort(names)
	if want := []string{"App User", "above", "connecting", "owning", "reading", "shop", "tuned"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

// TestStandby starts a server anew in recovery.
func TestStandby(t *testing.T) {
	s := pgtest.Start(t)
	s.Stop()
	if err := os.WriteFile(filepath.Join(s.DataDir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	expect(t, primary(t, s.DSN("postgres"), newestDump), "blocks primary_in_recovery server", "warns maintenance_database postgres")
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Database: "twin"}), "blocks secondary_in_recovery server")
}

// TestLoadBalancedAddress puts one address before two servers.
func TestLoadBalancedAddress(t *testing.T) {
	servers := []int{pgtest.Shared(t).Port, pgtest.Start(t).Port}
	address := balance(t, servers)
	dsn := pgtest.DSNAt(address, "postgres")
	if f := one(t, primary(t, dsn, newestDump), "address_load_balanced"); f.Object != address {
		t.Errorf("%+v", f)
	}
	if f := one(t, secondary(t, dsn, assess.Target{Database: "twin"}), "address_load_balanced"); f.Object != address {
		t.Errorf("%+v", f)
	}
	// One server behind it is one server.
	expect(t, primary(t, pgtest.DSNAt(balance(t, servers[:1]), "postgres"), newestDump), "warns maintenance_database postgres")
}

// balance listens and hands each connection to the next of the servers.
func balance(t *testing.T, ports []int) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var next atomic.Int64
	var work sync.WaitGroup
	t.Cleanup(func() { l.Close(); work.Wait() })
	work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[int(next.Add(1))%len(ports)]))
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				work.Go(func() {
					io.Copy(way[0], way[1])
					in.Close()
					out.Close()
				})
			}
		}
	})
	return l.Addr().String()
}
