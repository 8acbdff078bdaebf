package assess_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// An inventory names what is there, and holds nothing that may be a secret. Of jobs only those
// of the extension's own table are read.
func TestInventoryHoldsNoSecrets(t *testing.T) {
	s := pgtest.Shared(t)
	name := s.Database(t)
	dsn := s.DSN(name)
	pgtest.Exec(t, dsn, `CREATE EXTENSION postgres_fdw`, `CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'hunter2')`,
		`CREATE USER MAPPING FOR shop SERVER far OPTIONS (user 'x', password 'hunter2')`, `CREATE PUBLICATION news`,
		`CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere password=hunter2' PUBLICATION p, q WITH (connect = false, slot_name = NONE)`,
		`ALTER DATABASE `+sqlname.Quote(name)+` SET work_mem = '9MB'`, `ALTER ROLE shop IN DATABASE `+sqlname.Quote(name)+` SET app.key = 'hunter2'`,
		`CREATE SCHEMA cron`, `CREATE TABLE cron.job (jobid bigint, schedule text, command text, database text, jobname text)`,
		`INSERT INTO cron.job VALUES (1, '* * * * *', 'SELECT ''hunter2''', 'here', 'nightly'), (2, '5 * * * *', 'hunter2', 'elsewhere', NULL)`,
		// What only looks like the table of pgAgent is a trap.
		`CREATE SCHEMA pgagent`, `CREATE FUNCTION pgagent.trap() RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''a trap was read''; END'`,
		`CREATE VIEW pgagent.pga_job AS SELECT pgagent.trap() AS jobname`)
	t.Cleanup(func() {
		pgtest.Exec(t, dsn, `DROP SUBSCRIPTION feed`, `ALTER ROLE shop IN DATABASE `+sqlname.Quote(name)+` RESET ALL`)
	})
	conn := pgtest.Conn(t, dsn)
	ctx := testContext(t)
	if jobs, err := assess.ReadJobs(ctx, conn, ""); err != nil || len(jobs) != 0 {
		t.Errorf("jobs of a table that is not the extension's: %+v, %v", jobs, err)
	}
	pgtest.Exec(t, dsn, `INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) VALUES (99999, 'pg_cron', 10, 'cron'::regnamespace, false, '1')`,
		`INSERT INTO pg_depend VALUES ('pg_class'::regclass, 'cron.job'::regclass, 0, 'pg_extension'::regclass, 99999, 0, 'e')`)
	t.Cleanup(func() {
		pgtest.Exec(t, dsn, `DELETE FROM pg_depend WHERE refobjid = 99999`, `DELETE FROM pg_extension WHERE oid = 99999`)
	})
	for of, want := range map[string]string{"": "[{2 pg_cron 5 * * * *} {nightly pg_cron * * * * *}]", "here": "[{nightly pg_cron * * * * *}]", "nowhere": "[]"} {
		if jobs, err := assess.ReadJobs(ctx, conn, of); err != nil || fmt.Sprint(jobs) != want {
			t.Errorf("jobs of %q: %v, %v", of, jobs, err)
		}
	}

	got, err := assess.ReadInventory(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		list []assess.Thing
		want assess.Thing
	}{
		{got.Subscriptions, assess.Thing{Name: "feed", Detail: "of p, q, disabled"}},
		{got.Publications, assess.Thing{Name: "news"}},
		{got.Servers, assess.Thing{Name: "far", Detail: "postgres_fdw"}},
		{got.Mappings, assess.Thing{Name: "far for shop"}},
		{got.DatabaseSettings, assess.Thing{Name: "work_mem", Value: "9MB"}},
		{got.DatabaseSettings, assess.Thing{Name: "app.key of role shop"}},
	} {
		if !slices.Contains(c.list, c.want) {
			t.Errorf("%+v is not among %+v", c.want, c.list)
		}
	}
	if i := slices.IndexFunc(got.Settings, func(s assess.Thing) bool { return s.Name == "shared_buffers" }); i < 0 || !strings.HasSuffix(got.Settings[i].Value, " x 8kB") {
		t.Errorf("%+v", got.Settings)
	}
	for _, s := range got.Settings {
		if slices.Contains([]string{"port", "archive_command", "primary_conninfo", "application_name"}, s.Name) {
			t.Errorf("%+v", s)
		}
	}
	if strings.Contains(fmt.Sprintf("%+v", got), "hunter2") {
		t.Errorf("a secret is in the inventory: %+v", got)
	}
}
