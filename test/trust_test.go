package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// The owner of another database prepares it in every way that keeps an agent from
// reading it, or makes it run something; a copy of the linked database lies beside it.
// The agent starts, its link goes on, and each database is named.
func TestPreparedDatabasesKeepNobodyFromWorking(t *testing.T) {
	p := linktest.New(t, linktest.Options{})
	admin := p.A.Server.DSN("postgres")
	pgtest.Exec(t, admin, `CREATE DATABASE sales`)
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	p.A.Stop()
	pgtest.Exec(t, admin, `CREATE ROLE mallory LOGIN PASSWORD 'x'`)
	for _, name := range []string{"viewed", "newer", "locked"} {
		pgtest.Exec(t, admin, fmt.Sprintf(`CREATE DATABASE %s OWNER mallory`, name))
	}
	pgtest.Exec(t, p.A.Server.DSN("viewed"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan;
		CREATE FUNCTION twinspan.e() RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END IF; RETURN 1; END $$;
		CREATE VIEW twinspan.version AS SELECT twinspan.e() AS version; CREATE VIEW twinspan.link AS SELECT twinspan.e() AS id`)
	pgtest.Exec(t, p.A.Server.DSN("newer"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan; CREATE TABLE twinspan.version (version int); INSERT INTO twinspan.version VALUES (99)`)
	pgtest.Exec(t, p.A.Server.DSN("locked"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan; CREATE TABLE twinspan.version (version int)`)
	holder := pgtest.Conn(t, p.A.Server.DSN("locked"))
	if _, err := holder.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.version`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, `CREATE DATABASE copied TEMPLATE sales`)
	p.A.Start()
	pgtest.Exec(t, sales, `INSERT INTO t SELECT generate_series(1, 100)`)
	p.WaitEqual(t, "sales", "sales")
	links, err := p.A.Client.Links(t.Context())
	if err != nil || len(links) != 1 || links[0].Database != "sales" {
		t.Errorf("links %+v, %v", links, err)
	}
	if got := pgtest.Query(t, admin, `SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'`)[0][0]; got != "f" && got != "false" {
		t.Error("the owner of another database is a superuser")
	}
	self, err := p.A.Client.Agent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for database, code := range map[string]string{"viewed": "schema_taken", "newer": "schema_taken", "locked": "schema_taken", "copied": "link_not_proved"} {
		if !slices.ContainsFunc(self.Problems, func(q api.Problem) bool { return q.Subject == database && q.Code == code && q.Hint != "" }) {
			t.Errorf("%s: not named with %s in %+v", database, code, self.Problems)
		}
	}
	// What is over is not spoken of any more.
	pgtest.Exec(t, p.A.Server.DSN("newer"), `DROP SCHEMA twinspan CASCADE`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		self, err := p.A.Client.Agent(t.Context())
		if err != nil {
			return err
		}
		for _, q := range self.Problems {
			if strings.Contains(q.Subject, "newer") {
				return fmt.Errorf("still %+v", q)
			}
		}
		return nil
	})
}

// A linked database that is locked when its agent starts is found when the lock is gone.
func TestLockedLinkIsFoundLater(t *testing.T) {
	p := linktest.New(t, linktest.Options{})
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	p.A.Stop()
	holder := pgtest.Conn(t, sales)
	if _, err := holder.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.link`); err != nil {
		t.Fatal(err)
	}
	p.A.Start()
	self, err := p.A.Client.Agent(t.Context())
	if err != nil || !slices.ContainsFunc(self.Problems, func(q api.Problem) bool { return q.Subject == "sales" && q.Code == "lock_not_available" }) {
		t.Errorf("problems %+v, %v", self.Problems, err)
	}
	if _, err := holder.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := p.A.Client.Link(t.Context(), "sales")
		return err
	})
	pgtest.Exec(t, sales, `INSERT INTO t VALUES (1)`)
	p.WaitEqual(t, "sales", "sales")
}
