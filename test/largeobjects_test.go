package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// objects lists every large object with owner, rights, comment and a hash of each
// of its bytes and holes.
func objects(t *testing.T, dsn string) []string {
	t.Helper()
	var list []string
	for _, row := range pgtest.Query(t, dsn, `
		SELECT m.oid, pg_get_userbyid(lomowner), (SELECT string_agg(x, ',' ORDER BY x) FROM (SELECT unnest(coalesce(lomacl, acldefault('L', lomowner)))::text AS x) y),
		       obj_description(m.oid, 'pg_largeobject'), p.n, p.sum
		  FROM pg_largeobject_metadata m LEFT JOIN (SELECT loid, count(*) AS n, md5(string_agg(pageno || ':' || length(data) || ':' || md5(data), ',' ORDER BY pageno)) AS sum
		       FROM pg_largeobject GROUP BY loid) p ON p.loid = m.oid ORDER BY 1`) {
		list = append(list, strings.Join(row, " "))
	}
	return list
}

func sameObjects(t *testing.T, p *linktest.Pair, database string) {
	t.Helper()
	a, b := objects(t, p.A.Server.DSN(database)), objects(t, p.B.Server.DSN(database))
	if slices.Equal(a, b) {
		return
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("%d and %d objects, the first that differs is number %d:\n- %.300s\n+ %.300s", len(a), len(b), i, append(a, "nothing")[i], append(b, "nothing")[min(i, len(b))])
		}
	}
}

// noise is an SQL expression of so many bytes that do not compress.
func noise(n int) string {
	return fmt.Sprintf(`substr((SELECT string_agg(sha512(i::text::bytea), '') FROM generate_series(0, %d / 64) i), 1, %[1]d)`, n)
}

// Objects of every size and kind are seeded while agents are killed, and every
// change to them is brought afterwards, on request and by schedule.
func TestLargeObjectsAreSeededAndFollowed(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "files")
	a := p.A.Server.DSN("files")
	pgtest.Exec(t, a, `CREATE ROLE "Files ""Owner"""`, `CREATE ROLE reader`, `CREATE TABLE files (id oid PRIMARY KEY, name text)`)
	for i, size := range []int{0, 1, 2047, 2048, 2049, 4096, 1_000_000} {
		pgtest.Exec(t, a, fmt.Sprintf(`SELECT lo_from_bytea(%d, %s)`, 1000+i, noise(size)))
	}
	pgtest.Exec(t, a, `SELECT lo_create(2000), lo_put(2000, 8589934592, 'far away')`, `SELECT lo_create(4294967295)`,
		`SELECT lo_from_bytea(3000, `+noise(10<<20)+`)`, `DO $$ BEGIN FOR i IN 1..9 LOOP PERFORM lo_put(3000, i * 10485760, lo_get(3000, 0, 10485760)); END LOOP; END $$`,
		`ALTER LARGE OBJECT 1001 OWNER TO "Files ""Owner"""; GRANT SELECT ON LARGE OBJECT 1001 TO reader WITH GRANT OPTION; GRANT SELECT ON LARGE OBJECT 1001 TO PUBLIC`,
		`COMMENT ON LARGE OBJECT 1002 IS 'a "page", all but one byte'`,
		`SET ROLE "Files ""Owner"""; SELECT lo_from_bytea(0, sha256(i::text::bytea)) FROM generate_series(1, 20000) i`)

	p.Create(t, "files", "files")
	rng := rand.New(rand.NewPCG(pgtest.Seed(), 1))
	for i := range 4 {
		p.WaitPhase(t, "files", api.Creating, api.Seeding, api.CatchingUp, api.Replicating)
		pause(t, time.Duration(rng.IntN(900))*time.Millisecond)
		side := []*linktest.Side{p.A, p.B}[i%2]
		side.Kill()
		side.Start()
	}
	p.WaitPhase(t, "files", api.Replicating)
	sameObjects(t, p, "files")
	p.WaitEqual(t, "files", "files")

	bring := func(side *linktest.Side, copied, removed int64) {
		t.Helper()
		var out api.LargeObjectsResult
		pgtest.Eventually(t, linktest.Patience, func() (err error) {
			out, err = side.Client.LargeObjects(t.Context(), "files", api.LargeObjectsRequest{Now: true})
			return err
		})
		if out.Copied < copied || out.Removed < removed {
			t.Errorf("a pass did %+v, want %d and %d", out, copied, removed)
		}
		sameObjects(t, p, "files")
	}
	bring(p.A, 0, 0)
	pgtest.Exec(t, a, `SELECT lo_put(3000, 52428800, 'changed')`, `SELECT lo_truncate(lo_open(1006, x'60000'::int), 4096)`, `SELECT lo_put(2000, 5000, 'in the hole')`,
		`SELECT lo_unlink(1005), lo_unlink(4294967295)`, `SELECT lo_unlink(1003)`, `SELECT lo_from_bytea(1003, 'the same number')`,
		`REVOKE ALL ON LARGE OBJECT 1001 FROM PUBLIC`, `COMMENT ON LARGE OBJECT 1002 IS NULL`, `ALTER LARGE OBJECT 1000 OWNER TO reader`,
		`SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata WHERE pg_get_userbyid(lomowner) = 'Files "Owner"' ORDER BY oid LIMIT 1500) x`)
	// Commands about an object that the twin does not have yet do not stop the stream.
	pgtest.Exec(t, a, `SELECT lo_create(88)`, `COMMENT ON LARGE OBJECT 88 IS 'new'`, `GRANT SELECT ON LARGE OBJECT 88 TO reader`, `ALTER LARGE OBJECT 88 OWNER TO "Files ""Owner"""`)
	p.WaitApplied(t, "files", "files")
	bring(p.B, 7, 1502)

	every := int64(1)
	if out, err := p.A.Client.LargeObjects(t.Context(), "files", api.LargeObjectsRequest{EverySeconds: &every}); err != nil || out.EverySeconds != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	pgtest.Exec(t, a, `SELECT lo_from_bytea(77, 'by schedule')`, `INSERT INTO files VALUES (77, 'new')`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if got := pgtest.Query(t, p.B.Server.DSN("files"), `SELECT count(*) FROM pg_largeobject WHERE loid = 77`)[0][0]; got != "1" {
			return fmt.Errorf("%s pages have come", got)
		}
		return nil
	})
	sameObjects(t, p, "files")
	pgtest.Eventually(t, linktest.Patience, func() error {
		for _, side := range []*linktest.Side{p.A, p.B} {
			l, err := side.Client.Link(t.Context(), "files")
			if err != nil || l.LargeObjects == nil || l.LargeObjects.AsOf == nil || l.LargeObjects.Objects < 18000 || len(l.Problems) > 0 {
				return fmt.Errorf("side %s shows %+v, %+v, %v", side.Name, l.LargeObjects, l.Problems, err)
			}
		}
		return nil
	})

	// What was written last comes with the removal of the link.
	every = 0
	if _, err := p.B.Client.LargeObjects(t.Context(), "files", api.LargeObjectsRequest{EverySeconds: &every}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `SELECT lo_put(77, 0, 'At last')`)
	result, err := p.A.Client.DeleteLink(t.Context(), "files", false)
	if err != nil {
		t.Fatal(err)
	}
	if text := result.Sides[1].Text; !strings.Contains(text, "large objects included") {
		t.Errorf("the result says %q", text)
	}
	sameObjects(t, p, "files")
	for _, side := range []*linktest.Side{p.A, p.B} {
		if peak := side.PeakMemory(t); peak > 400<<20 {
			t.Errorf("agent %s took %d MB", side.Name, peak>>20)
		} else {
			t.Logf("agent %s took %d MB at most", side.Name, peak>>20)
		}
	}
}

// A half-made twin of many large objects, in a database that was there before, is
// emptied of them.
func TestHalfSeededLargeObjectsAreRemoved(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerB: []pgtest.Option{pgtest.WithSetting("max_connections", "20"), pgtest.WithSetting("max_prepared_transactions", "0")}})
	p.A.Server.CreateDatabase(t, "files")
	p.B.Server.CreateDatabase(t, "files")
	pgtest.Exec(t, p.A.Server.DSN("files"), `SELECT lo_from_bytea(0, 'x') FROM generate_series(1, 12000)`,
		`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`)
	p.Create(t, "files", "files")
	b := p.B.Server.DSN("files")
	pgtest.Eventually(t, linktest.Patience, func() error {
		if pgtest.Query(t, b, `SELECT count(*) > 1000 FROM pg_largeobject_metadata`)[0][0] != "t" {
			return fmt.Errorf("no large objects yet")
		}
		return nil
	})
	result, err := p.B.Client.DeleteLink(t.Context(), "files", true)
	if err != nil {
		t.Fatal(err)
	}
	if left := pgtest.Query(t, b, `SELECT count(*) FROM pg_largeobject_metadata`)[0][0]; left != "0" && !strings.Contains(result.Sides[0].Text, "whole copy") {
		t.Errorf("%s large objects are left; the result says %+v", left, result.Sides[0])
	}
}
