package test

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// fault is something that stands against a link, and how check finds it: severity,
// code and object. It is planted by statements in the database or on a server, or in a
// setting with which the primary is started.
type fault struct {
	database, primary, secondary string
	setting                      [2]string
	found                        string
	impossible                   bool // on this machine
}

// faults are planted all together, in order.
func faults(major int) []fault {
	origins := "max_replication_slots"
	if major >= 18 {
		origins = "max_active_replication_origins"
	}
	return []fault{
		// What the database holds.
		{database: `CREATE TABLE keyless (a int)`, found: `informs table_without_key public.keyless`},
		{database: `CREATE UNLOGGED TABLE scratch (a int PRIMARY KEY)`, found: `informs unlogged_table public.scratch`},
		{database: `CREATE TYPE pair AS (a int, b text); CREATE TABLE as_text (a int PRIMARY KEY, p pair)`, found: `informs types_as_text public.as_text`},
		{database: `SELECT lo_create(0)`, found: `informs large_objects_in_passes pg_largeobject`},
		{database: `CREATE TABLE watched (a int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER always BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION f();
			ALTER TABLE watched ENABLE ALWAYS TRIGGER always`, found: `informs trigger_fires_on_twin always on public.watched`},
		{database: `CREATE RULE elsewhere AS ON INSERT TO watched DO ALSO NOTIFY x; ALTER TABLE watched ENABLE REPLICA RULE elsewhere`, found: `informs rule_fires_on_twin elsewhere on public.watched`},
		{database: `CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER guard ON sql_drop EXECUTE FUNCTION e(); ALTER EVENT TRIGGER guard ENABLE ALWAYS`,
			found: `informs event_trigger_fires_on_twin guard`},
		{database: `CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE hashed (m mood) PARTITION BY HASH (m)`, found: `blocks partitioned_by_hash_of_enum public.hashed`},
		{database: `CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE loosely (a text COLLATE loose PRIMARY KEY)`, found: `informs collation_nondeterministic public.loose`},
		{database: `CREATE FUNCTION in_c() RETURNS trigger LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'`, found: `warns function_in_c public.in_c()`},
		{database: `CREATE SCHEMA cron; CREATE TABLE cron.job (id int PRIMARY KEY)`, found: `informs jobs_not_carried cron.job`},
		{database: `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE distant (a int) SERVER far`, found: `informs foreign_server far`},
		{database: `CREATE PUBLICATION news FOR TABLE watched`, found: `informs publication_not_carried news`},
		{database: `CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false); ALTER SUBSCRIPTION feed ENABLE`, found: `warns subscription_not_carried feed`},
		{database: `CREATE TABLE placed (a int PRIMARY KEY) TABLESPACE fast`, found: `informs tablespace_not_kept public.placed`},
		{database: `CREATE SCHEMA twinspan`, found: `blocks schema_taken twinspan`},
		{database: `CREATE EVENT TRIGGER twinspan_gate ON sql_drop EXECUTE FUNCTION e()`, found: `blocks database_is_secondary faulty`},
		{database: `BEGIN; INSERT INTO keyless VALUES (1); PREPARE TRANSACTION 'half done'`, found: `warns prepared_transaction half done`},
		{database: `CREATE EXTENSION hstore; UPDATE pg_extension SET extname = 'not_there' WHERE extname = 'hstore'`, found: `blocks extension_missing not_there`},
		{database: `CREATE EXTENSION citext; UPDATE pg_extension SET extversion = '99.1' WHERE extname = 'citext'`, found: `warns extension_older citext`},
		{database: `CREATE EXTENSION pg_trgm; UPDATE pg_extension SET extversion = '0.1' WHERE extname = 'pg_trgm'`, found: `informs extension_newer pg_trgm`},
		{database: `SECURITY LABEL ON TABLE watched IS 'secret'`, found: `blocks label_provider_missing label`, impossible: !pgtest.CanLabel()},
		{database: `CREATE ROLE "Absent" LOGIN; ALTER TABLE watched OWNER TO "Absent"`, found: `informs role_missing Absent`},
		{database: `CREATE ROLE weak LOGIN CREATEDB; GRANT SELECT ON watched TO weak`, secondary: `CREATE ROLE weak`, found: `informs role_differs weak`},
		{database: `CREATE ROLE mute LOGIN PASSWORD 'x'; GRANT SELECT ON watched TO mute`, secondary: `CREATE ROLE mute LOGIN`, found: `informs role_without_password mute`},
		{database: `INSERT INTO pg_db_role_setting SELECT oid, 0, '{no_such_setting=1}' FROM pg_database WHERE datname = current_database()`, found: `warns setting_not_carried no_such_setting`},
		{primary: `ALTER DATABASE faulty SET session_replication_role = origin`, found: `informs setting_left session_replication_role`},
		{primary: `ALTER DATABASE faulty IS_TEMPLATE true`, found: `blocks database_is_template faulty`},
		{primary: `UPDATE pg_database SET datcollversion = 'ancient' WHERE datname = 'faulty'`, found: `warns collation_stale faulty`, impossible: major < 15},
		// What the servers are.
		{setting: [2]string{"max_slot_wal_keep_size", "1MB"}, found: `informs slot_wal_limited max_slot_wal_keep_size`},
		{setting: [2]string{"max_replication_slots", "2"}, found: `blocks slots_used_up max_replication_slots`},
		{primary: `SELECT pg_create_physical_replication_slot('left_over', true)`, found: `informs slot_abandoned left_over`},
		{setting: [2]string{"max_wal_senders", "1"}, found: `blocks senders_used_up max_wal_senders`},
		{setting: [2]string{"max_locks_per_transaction", "10"}, found: `warns locks_short max_locks_per_transaction`},
		{setting: [2]string{"max_connections", "10"}, found: `warns connections_short max_connections`},
		{setting: [2]string{"fsync", "off"}, found: `informs fsync_off fsync`},
		{secondary: `SELECT pg_replication_origin_create('a'), pg_replication_origin_create('b')`, found: `blocks origins_used_up ` + origins},
		// What is there already.
		{secondary: `CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`, found: `warns encoding_differs narrow`},
		{secondary: `narrow: CREATE TABLE t ()`, found: `blocks target_not_empty narrow`},
	}
}

// leastFaults is how many different ones a check has to find.
const leastFaults = 30

func TestCheckFindsEveryPlantedFault(t *testing.T) {
	t.Parallel()
	newest, err := instance.FindBinaries(0)
	if err != nil {
		t.Fatal(err)
	}
	list := faults(newest.Major)
	settings := []pgtest.Option{pgtest.WithSetting("max_prepared_transactions", "2"), pgtest.WithSetting("max_logical_replication_workers", "0")}
	few := []pgtest.Option{pgtest.WithSetting("max_replication_slots", "2")}
	if newest.Major >= 18 {
		few = append(few, pgtest.WithSetting("max_active_replication_origins", "2"))
	}
	codes := map[string]bool{}
	for _, f := range list {
		code := strings.Fields(f.found)[1]
		if codes[code] {
			t.Errorf("%s is planted twice", code)
		}
		if _, listed := problem.Describe(code); !listed {
			t.Errorf("%s is not in the catalogue", code)
		}
		codes[code] = true
		if f.setting[0] != "" {
			settings = append(settings, pgtest.WithSetting(f.setting[0], f.setting[1]))
		}
	}
	if len(codes) < leastFaults {
		t.Errorf("%d faults are planted, fewer than %d", len(codes), leastFaults)
	}
	p := linktest.New(t, linktest.Options{ServerA: settings, ServerB: few, Before: func(name string, s *pgtest.Server) {
		if name == "a" && pgtest.CanLabel() {
			s.LoadLabelProvider(t)
		}
	}})
	plantAll(t, p, list)
	has(t, check(t, p, api.CheckRequest{Database: "faulty", Peer: "b", PeerDatabase: "narrow"}), found(list)...)
}

func found(list []fault) (want []string) {
	for _, f := range list {
		if !f.impossible {
			want = append(want, f.found)
		}
	}
	return want
}

func plantAll(t *testing.T, p *linktest.Pair, list []fault) {
	t.Helper()
	a, b := p.A.Server, p.B.Server
	a.CreateDatabase(t, "faulty")
	pgtest.Exec(t, a.DSN("postgres"), `CREATE TABLESPACE fast LOCATION '`+serversDir(t)+`'`)
	for i := range 25 { // a few at a time, for the locks are few
		pgtest.Exec(t, a.DSN("faulty"), fmt.Sprintf(`DO 'BEGIN FOR i IN 1..10 LOOP EXECUTE ''CREATE TABLE many%d_'' || i || '' (a int PRIMARY KEY)''; END LOOP; END'`, i))
	}
	for _, f := range list {
		if f.impossible {
			continue
		}
		if f.database != "" {
			pgtest.Exec(t, a.DSN("faulty"), f.database)
		}
		if f.primary != "" {
			pgtest.Exec(t, a.DSN("postgres"), f.primary)
		}
		if database, sql, ok := strings.Cut(f.secondary, ": "); ok {
			pgtest.Exec(t, b.DSN(database), sql)
		} else if f.secondary != "" {
			pgtest.Exec(t, b.DSN("postgres"), f.secondary)
		}
	}
}

// serversDir returns an empty directory that belongs to the user of the servers.
func serversDir(t *testing.T) string {
	t.Helper()
	dir := pgtest.Dir(t)
	if os.Getuid() != 0 {
		return dir
	}
	owner, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	return dir
}
