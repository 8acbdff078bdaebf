package capture_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// updatable are tables with an identity that the server, or the twin, does not take. Each has
// a column v. want is the identity while it is linked, on a server before 18: f full, d default, i index.
var updatable = []struct {
	name, ddl string
	since     int // the first version that takes the ddl
	want      string
}{
	{"key_with_generated", "CREATE TABLE %s (a int DEFAULT 1, v int, g int GENERATED ALWAYS AS (a * 2) STORED, PRIMARY KEY (v, g))", 12, "f"},
	{"key_of_generated", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2) STORED PRIMARY KEY)", 12, "f"},
	{"stored_without_key", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2) STORED)", 12, "f"},
	{"stored_and_full", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2) STORED, id serial PRIMARY KEY); ALTER TABLE %[1]s REPLICA IDENTITY FULL", 12, "f"},
	{"chosen_with_generated", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2) STORED NOT NULL); CREATE UNIQUE INDEX ON %[1]s (g); ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_g_idx", 12, "f"},
	{"virtual_with_key", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2), id serial PRIMARY KEY)", 18, "d"},
	{"virtual_and_full", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2), id serial PRIMARY KEY); ALTER TABLE %[1]s REPLICA IDENTITY FULL", 18, "d"},
	{"virtual_with_unique", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2), id serial NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id)", 18, "i"},
	{"virtual_with_deferrable_key", "CREATE TABLE %s (v int, g int GENERATED ALWAYS AS (v * 2), id serial PRIMARY KEY DEFERRABLE, u serial NOT NULL UNIQUE)", 18, "i"},
	{"deferrable", "CREATE TABLE %s (v int PRIMARY KEY DEFERRABLE)", 10, "f"},
	{"without_overlaps", "CREATE TABLE %s (v int, r int4range DEFAULT int4range((random() * 1000000000)::int, 2000000000), p int4range DEFAULT '[1,2)', PRIMARY KEY (r, p WITHOUT OVERLAPS))", 18, "f"},
	{"nothing", "CREATE TABLE %s (v int PRIMARY KEY); ALTER TABLE %[1]s REPLICA IDENTITY NOTHING", 10, "d"},
	{"keyless", "CREATE TABLE %s (v int)", 10, "f"},
	{"keyed", "CREATE TABLE %s (id serial PRIMARY KEY, v int)", 10, "d"},
	{"ruled", "CREATE TABLE %s (v int); CREATE RULE r AS ON DELETE TO %[1]s DO ALSO SELECT 1", 10, "f"},
	{"nullable_index", "CREATE TABLE %s (v int UNIQUE, w int)", 10, "f"},
}

// wanted is want, but for keys whose stored columns a server of version 18 sends.
func wanted(want string, major int, name string) string {
	if major >= 18 && (strings.HasPrefix(name, "key_")) {
		return "d"
	}
	if major >= 18 && name == "chosen_with_generated" {
		return "i"
	}
	return want
}

// No UPDATE or DELETE fails because a table is published, on any version, whether the table
// came before the link or after; and afterwards each has the identity that it had.
func TestEveryTableStaysUpdatable(t *testing.T) {
	for _, major := range []int{10, 12, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := pgtest.Shared(t)
			if major != 15 {
				server = pgtest.Start(t, pgtest.WithMajor(major))
			}
			dsn, s := fresh(t, server)
			var before []string
			for _, c := range updatable {
				if major >= c.since {
					pgtest.Exec(t, dsn, fmt.Sprintf(c.ddl, "before_"+c.name))
				}
			}
			before = identities(t, dsn)
			prepare(t, s)
			for _, c := range updatable {
				if major >= c.since {
					pgtest.Exec(t, dsn, fmt.Sprintf(c.ddl, "after_"+c.name))
				}
			}
			for _, c := range updatable {
				for _, when := range []string{"before_", "after_"} {
					if major < c.since {
						continue
					}
					pgtest.Exec(t, dsn, fmt.Sprintf("INSERT INTO %[1]s (v) VALUES (1), (2); UPDATE %[1]s SET v = 7 WHERE v = 1; DELETE FROM %[1]s", when+c.name))
					if got := pgtest.Query(t, dsn, `SELECT relreplident FROM pg_class WHERE oid = '`+when+c.name+`'::regclass`)[0][0]; got != wanted(c.want, major, c.name) {
						t.Errorf("%s%s has identity %s", when, c.name, got)
					}
				}
			}
			prepare(t, s)
			remove(t, s, true)
			after := slices.DeleteFunc(identities(t, dsn), func(line string) bool { return strings.HasPrefix(line, "after_") })
			if !slices.Equal(before, after) {
				t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		})
	}
}

// A key that goes, a column that comes: the identity follows within the transaction.
func TestIdentityFollowsTheTable(t *testing.T) {
	server := pgtest.Start(t, pgtest.WithMajor(18))
	dsn, s := fresh(t, server)
	prepare(t, s)
	identity := func(want string) {
		t.Helper()
		if got := pgtest.Query(t, dsn, `SELECT relreplident FROM pg_class WHERE relname = 't'`)[0][0]; got != want {
			t.Errorf("identity %s, not %s", got, want)
		}
		pgtest.Exec(t, dsn, `INSERT INTO public.t (v) VALUES (1); UPDATE public.t SET v = 2; DELETE FROM public.t`)
	}
	refused := func(sql string) {
		t.Helper()
		if _, err := connect(t, dsn).Exec(testContext(t), sql); err == nil || !strings.Contains(err.Error(), "would refuse UPDATE and DELETE of the linked table public.t") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	pgtest.Exec(t, dsn, `CREATE TABLE t (v int)`)
	identity("f")
	pgtest.Exec(t, dsn, `ALTER TABLE public.t ADD COLUMN s int GENERATED ALWAYS AS (v + 1) STORED`)
	identity("f")
	refused(`ALTER TABLE public.t ADD COLUMN g int GENERATED ALWAYS AS (v + 1) VIRTUAL`)
	identity("f")
	pgtest.Exec(t, dsn, `ALTER TABLE public.t ADD COLUMN id serial PRIMARY KEY`)
	identity("d")
	pgtest.Exec(t, dsn, `ALTER TABLE public.t ADD COLUMN g int GENERATED ALWAYS AS (v + 1) VIRTUAL`)
	identity("d")
	refused(`ALTER TABLE public.t DROP CONSTRAINT t_pkey`)
	refused(`ALTER TABLE public.t DROP COLUMN id`)
	identity("d")
	pgtest.Exec(t, dsn, `ALTER TABLE public.t REPLICA IDENTITY FULL`)
	identity("d")
	pgtest.Exec(t, dsn, `ALTER TABLE public.t DROP COLUMN g`)
	identity("d")

	// A new table may be filled before it gets its key, as restores do.
	pgtest.Exec(t, dsn, `CREATE TABLE v (v int, g int GENERATED ALWAYS AS (v + 1) VIRTUAL); INSERT INTO v VALUES (1), (2); ALTER TABLE v ADD COLUMN w int; ALTER TABLE v ADD PRIMARY KEY (v); UPDATE v SET w = 1; DELETE FROM v`)

	// Somebody else's publication for which the server refuses UPDATE, with a link or without, stands against no command.
	pgtest.Exec(t, dsn, `CREATE TABLE p (a int, v int); CREATE PUBLICATION others FOR TABLE p (a)`, `ALTER TABLE p ADD COLUMN w int`,
		`ALTER TABLE p ADD PRIMARY KEY (v)`, `ALTER TABLE p DROP CONSTRAINT p_pkey`, `DROP PUBLICATION others`, `INSERT INTO p VALUES (1, 1); UPDATE p SET v = 2; DELETE FROM p`)
	remove(t, s, true)
	if got := pgtest.Query(t, dsn, `SELECT string_agg(relreplident::text, '' ORDER BY relname) FROM pg_class WHERE relname IN ('t', 'v')`)[0][0]; got != "fd" {
		t.Errorf("afterwards the identities are %s", got)
	}
}

// An identity that somebody chooses is kept, also where the link had chosen the same, and
// however the command comes.
func TestIdentityThatIsChosenIsKept(t *testing.T) {
	t.Parallel()
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, fmt.Sprintf(`INSERT INTO twinspan.link (id, name, agent, peer, peer_agent, peer_database, role, phase, epoch, seeded)
		VALUES ('%[1]s', 'sales', '%[1]s', 'p', '%[1]s', 'd', 'primary', 'replicating', 1, true)`, s.Link))
	prepare(t, s)
	pgtest.Exec(t, dsn, `CREATE TABLE own (v int); CREATE TABLE "replica identity full" (v int); CREATE TABLE "chosen" (v int); CREATE TABLE among (v int); CREATE TABLE inside (v int);
		CREATE TABLE keyed (v int PRIMARY KEY); CREATE TABLE back (v int PRIMARY KEY); CREATE TABLE again (v int); CREATE TABLE parted (v int) PARTITION BY LIST (v); CREATE TABLE part PARTITION OF parted DEFAULT`,
		`ALTER TABLE keyed REPLICA IDENTITY NOTHING; ALTER TABLE back REPLICA IDENTITY NOTHING`,
		`COMMENT ON TABLE own IS 'ALTER TABLE own REPLICA IDENTITY FULL'; ALTER TABLE own ALTER v SET DEFAULT 1 /* REPLICA IDENTITY FULL */`,
		`ALTER TABLE "replica identity full" ALTER v SET DEFAULT 1`,
		`ALTER TABLE "chosen" REPLICA /* of all */ IDENTITY
			full`,
		`ALTER TABLE among ADD w int DEFAULT 1, REPLICA IDENTITY FULL`,
		`DO $$ BEGIN EXECUTE 'ALTER TABLE ONLY inside REPLICA IDENTITY FULL'; END $$`,
		`ALTER TABLE keyed REPLICA IDENTITY DEFAULT`,
		`ALTER TABLE again REPLICA IDENTITY FULL; ALTER TABLE again REPLICA IDENTITY DEFAULT`,
		`ALTER TABLE parted REPLICA IDENTITY FULL`)
	remove(t, s, true)
	got := pgtest.Query(t, dsn, `SELECT string_agg(relname || ' ' || relreplident::text, ', ' ORDER BY relname) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace`)[0][0]
	if want := "again d, among f, back n, chosen f, inside f, keyed d, own d, part d, parted f, replica identity full d"; got != want {
		t.Errorf("afterwards the identities are %s, not %s", got, want)
	}
}

// Trying fires no trigger, and what its owner put at a table runs with the owner's rights.
func TestTryingRunsNothingOfUsers(t *testing.T) {
	server := pgtest.Start(t, pgtest.WithMajor(18))
	dsn, s := fresh(t, server)
	pgtest.Exec(t, dsn, `CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; CREATE TABLE seen (who text, super text); GRANT ALL ON seen TO PUBLIC;
		SET ROLE app;
		CREATE FUNCTION spy(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
			PERFORM set_config('spy.who', current_user, false);
			IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE app SUPERUSER; END IF; RETURN 1; END $$;
		CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (current_user); RETURN NULL; END $$;
		CREATE TABLE t (id int CHECK (spy(1) = 1), v int, g int GENERATED ALWAYS AS (id + spy(1)) STORED);
		CREATE INDEX ON t ((id + spy(1))) WHERE spy(2) = 1;
		CREATE STATISTICS st ON (id + spy(1)), v FROM t;
		CREATE TRIGGER told AFTER UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION told();
		ALTER TABLE t ENABLE ALWAYS TRIGGER told;
		ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (spy(3) = 1)`)
	prepare(t, s)
	pgtest.Exec(t, dsn, `SET ROLE app; ALTER TABLE t ADD COLUMN w int; ALTER TABLE t ALTER COLUMN w SET DEFAULT 1`)
	prepare(t, s)
	if rows := pgtest.Query(t, dsn, `SELECT count(*), (SELECT rolsuper FROM pg_roles WHERE rolname = 'app') FROM seen`); rows[0][0] != "0" || rows[0][1] != "f" {
		t.Errorf("triggers that fired, app is superuser: %v", rows)
	}
	pgtest.Exec(t, dsn, `SET ROLE app; INSERT INTO t (id, v) VALUES (1, 1); UPDATE t SET v = 2; DELETE FROM t`)
	if left := pgtest.Query(t, dsn, `SELECT proname FROM pg_proc WHERE proname LIKE 'trier%'`); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
