package catalog_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// strays looks into a database as init --adopt does.
func strays(t testing.TB, dsn string) ([]catalog.Stray, error) {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), catalog.DiscoverSession())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return catalog.Strays(testContext(t), conn, 5)
}

// The records of a linked database may be taken over, with what is noted of the peer; those
// of a copy are doubted, and those of which nothing is noted but where the link's origin is there.
func TestStraysAreOfThisDatabase(t *testing.T) {
	conn, dsn, l := seeded(t)
	ctx := testContext(t)
	expect := func(what string, doubted bool, contact *catalog.Contact) {
		t.Helper()
		found, err := strays(t, dsn)
		if err != nil || len(found) != 1 || found[0].ID != l.ID || (found[0].Doubt != "") != doubted || found[0].Sessions != 0 {
			t.Fatalf("%s: %+v, %v", what, found, err)
		}
		if c := found[0].Contact; (c == nil) != (contact == nil) || c != nil && (c.Endpoint != contact.Endpoint || !slices.Equal(c.Fingerprints, contact.Fingerprints)) {
			t.Errorf("%s: contact %+v, want %+v", what, c, contact)
		}
	}
	expect("linked here", false, nil)
	for _, c := range []catalog.Contact{{Endpoint: "a:5022", Fingerprints: []string{"SHA256:x"}}, {Fingerprints: []string{"SHA256:y", "SHA256:z"}}} {
		if err := catalog.SetContact(ctx, conn, l.ID, c); err != nil {
			t.Fatal(err)
		}
		expect("with a contact", false, &c)
	}
	pgtest.Exec(t, dsn, `DROP TABLE twinspan.peer`)
	pgtest.Exec(t, dsn, `UPDATE twinspan.home SET database = database + 1`)
	expect("a copy on this server", true, nil)
	pgtest.Exec(t, dsn, `UPDATE twinspan.home SET server = '1'`)
	expect("of another server", true, nil)
	pgtest.Exec(t, dsn, `DELETE FROM twinspan.home`)
	expect("of which nothing is noted", true, nil)
	origin := catalog.ObjectName(l.ID)
	pgtest.Exec(t, dsn, fmt.Sprintf(`SELECT pg_replication_origin_create('%s')`, origin))
	expect("whose origin is there", false, nil)
	pgtest.Exec(t, dsn, fmt.Sprintf(`SELECT pg_replication_origin_drop('%s')`, origin))
}

// A role that is neither a superuser nor the agent's takes nothing over.
func TestOrdinaryRolesTakeNothingOver(t *testing.T) {
	_, dsn, _ := seeded(t)
	database := pgtest.Query(t, dsn, `SELECT current_database()`)[0][0]
	role := "reader_" + database
	pgtest.Exec(t, dsn, fmt.Sprintf(`CREATE ROLE %q LOGIN PASSWORD 'x'`, role), fmt.Sprintf(`GRANT USAGE ON SCHEMA twinspan TO %q`, role),
		fmt.Sprintf(`GRANT SELECT ON ALL TABLES IN SCHEMA twinspan TO %q`, role))
	t.Cleanup(func() { pgtest.Exec(t, dsn, fmt.Sprintf(`DROP OWNED BY %q`, role), fmt.Sprintf(`DROP ROLE %q`, role)) })
	if found, err := strays(t, pgtest.Shared(t).DSNOf(role, "x", database)); problem.CodeOf(err) != "adopt_rights" || len(found) != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
}
