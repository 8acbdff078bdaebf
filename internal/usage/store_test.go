package usage

import (
	"fmt"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// What the owner of a database puts in the place of the tables is neither read nor written: it
// would run his code as the agent.
func TestTablesOfOthersAreLeftAlone(t *testing.T) {
	server := pgtest.Start(t)
	server.CreateDatabase(t, "shop")
	pgtest.Exec(t, server.DSN("shop"), `CREATE ROLE eve`, `ALTER DATABASE shop OWNER TO eve`, `CREATE TABLE ran (who name)`, `GRANT INSERT ON ran TO PUBLIC`,
		`SET ROLE eve; CREATE SCHEMA twinspan; CREATE TABLE twinspan.version (version int)`,
		`SET ROLE eve; CREATE FUNCTION twinspan.note() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN now(); END $$`,
		`SET ROLE eve; CREATE VIEW twinspan.usage_hour AS SELECT twinspan.note() AS hour, ''::text AS tier, 1 AS vcores, 1::bigint AS storage, 1::bigint AS used, ''::text AS role,
			false AS passive, now() AS first_at, now() AS last_at, 1::float8 AS gap_seconds, false AS unlogged`,
		`SET ROLE eve; CREATE VIEW twinspan.usage_void AS SELECT twinspan.note() AS hour, ''::text AS role, ''::text AS database, ''::text AS application, ''::text AS client, now() AS first_at`,
		`SET ROLE eve; CREATE FUNCTION twinspan.noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM twinspan.note(); RETURN NEW; END $$`,
		`SET ROLE eve; CREATE TRIGGER t INSTEAD OF INSERT ON twinspan.usage_hour FOR EACH ROW EXECUTE FUNCTION twinspan.noted()`)
	dsn, err := pg.ParseDSN(server.DSN("shop"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dsn.Connect(t.Context(), pg.Session{Name: "usage", Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	at := time.Now().UTC()
	tries := map[string]error{"install": install(t.Context(), conn), "store": store(t.Context(), conn, Hour{Start: at, First: at, Last: at}, nil)}
	_, _, _, tries["read"] = read(t.Context(), conn, at.Add(-time.Hour), at.Add(time.Hour))
	for what, err := range tries {
		if problem.CodeOf(err) != "schema_taken" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if ran := pgtest.Query(t, server.DSN("shop"), `SELECT who::text FROM ran`); len(ran) > 0 {
		t.Errorf("the owner's code ran as %s", fmt.Sprint(ran))
	}
}
