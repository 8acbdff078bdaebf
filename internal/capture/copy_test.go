package capture_test

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// In a copy of a primary nothing is refused, said or changed for a link's sake.
func TestCopiesOfAPrimaryAreFree(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, s := fresh(t, server)
	conn := connect(t, dsn)
	err := catalog.Insert(testContext(t), conn, &catalog.Link{
		ID: s.Link, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
		Name: "sales", Peer: "b", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async",
	})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(testContext(t))
	prepare(t, s)
	const refused = `CREATE FUNCTION public.c() RETURNS int LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'`
	if _, err := connect(t, dsn).Exec(testContext(t), refused); err == nil || !strings.Contains(err.Error(), "is the primary of link") {
		t.Fatalf("on the primary: %v", err)
	}
	name := pgtest.Query(t, dsn, `SELECT current_database()`)[0][0]
	pgtest.Exec(t, server.DSN("postgres"), `DO $$ BEGIN PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '`+name+`'; END $$`, `CREATE DATABASE `+name+`_copy TEMPLATE `+name)
	t.Cleanup(func() { pgtest.Exec(t, server.DSN("postgres"), `DROP DATABASE `+name+`_copy WITH (FORCE)`) })
	copied := server.DSN(name + "_copy")
	pgtest.Exec(t, copied, `CREATE FUNCTION twinspan.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'said %', new; END $$; CREATE TRIGGER tell AFTER INSERT ON twinspan.signal FOR EACH ROW EXECUTE FUNCTION twinspan.tell()`,
		refused, `CREATE TABLE public.t (id int)`, `CREATE UNIQUE INDEX i ON public.t (id)`, `ALTER TABLE public.t ALTER id SET NOT NULL; ALTER TABLE public.t REPLICA IDENTITY USING INDEX i`, `DROP INDEX CONCURRENTLY public.i`, `DROP FUNCTION public.c()`)
	if got := pgtest.Query(t, copied, `SELECT relreplident FROM pg_class WHERE oid = 'public.t'::regclass`)[0][0]; got != "i" {
		t.Errorf("the identity became %s", got)
	}
}
