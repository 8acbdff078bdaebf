package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// everyType is a table with a column of each kind of type, and rows at the edges
// of their values.
var everyType = []string{
	`CREATE SCHEMA "Weird ""Schema"`,
	`CREATE TYPE "Weird ""Schema"."Mood" AS ENUM ('sad', 'it''s ok', 'ha"ppy')`,
	`CREATE TYPE pair AS (a int, b text)`,
	`CREATE DOMAIN positive AS int CHECK (VALUE > 0)`,
	`CREATE TYPE span AS RANGE (subtype = timestamptz)`,
	`CREATE EXTENSION hstore`,
	`CREATE EXTENSION citext`,
	`CREATE TABLE "Weird ""Schema"."Every ""Type" (
		"Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		i2 smallint, i4 int, f4 real, f8 double precision, num numeric, money money, t text, v varchar(20), c char(5), b bytea,
		d date, ti time, tz timetz, ts timestamp, tstz timestamptz, iv interval, bo boolean,
		pt point, ln line, ls lseg, bx box, pa path, po polygon, ci circle, inet inet, cidr cidr, mac macaddr, mac8 macaddr8,
		bits bit(5), vbits varbit, tsv tsvector, tsq tsquery, u uuid, x xml, j json, jb jsonb, jp jsonpath, lsn pg_lsn,
		ia int[], ta text[], ma int[][], mood "Weird ""Schema"."Mood", moods "Weird ""Schema"."Mood"[], p pair, ps pair[], pos positive,
		r int4range, nr numrange, sp span, mr int4multirange, h hstore, ct citext, nm name, rc regclass, o oid,
		gen int GENERATED ALWAYS AS (i4 * 2) STORED)`,
	`CREATE TABLE keyless (a int, b text, c json, p point)`,
	`CREATE TABLE part (id int, at date, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)`,
	`CREATE TABLE part_old PARTITION OF part FOR VALUES FROM (MINVALUE) TO ('2020-01-01')`,
	`CREATE TABLE part_new PARTITION OF part FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)`,
	`CREATE TABLE parent (id int PRIMARY KEY, a text)`,
	`CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent)`,
	`CREATE TABLE toast (id int PRIMARY KEY, n int, big text)`,
	`CREATE TABLE doubly (id int PRIMARY KEY, code int UNIQUE, note text)`,
	`CREATE TABLE referring (id int PRIMARY KEY, parent int REFERENCES doubly (id) ON DELETE CASCADE)`,
}

const insertEveryType = `INSERT INTO "Weird ""Schema"."Every ""Type" (i2,i4,f4,f8,num,money,t,v,c,b,d,ti,tz,ts,tstz,iv,bo,pt,ln,ls,bx,pa,po,ci,inet,cidr,mac,mac8,
	bits,vbits,tsv,tsq,u,x,j,jb,jp,lsn,ia,ta,ma,mood,moods,p,ps,pos,r,nr,sp,mr,h,ct,nm,rc,o) VALUES
	(-32768,1073741823,'NaN','-Infinity','NaN','-12.34',E'tab\tnew\nline\\ "q" ''s''','', 'ab', '\x00ff0a5c', '4713-01-01 BC','24:00','00:00+14','infinity','-infinity','-1 mon +2 days -03:04:05.678',true,
	 '(1,-2)','{1,2,3}','[(0,0),(1,1)]','(1,1),(0,0)','((0,0),(1,1))','((0,0),(1,1),(2,0))','<(0,0),1>','::1/64','10.0.0.0/8','08:00:2b:01:02:03','08:00:2b:01:02:03:04:05',
	 B'10101',B'1','''it''''s'' fat:1A','a & !b','a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11','<a b="1">é</a>','{"k" : [1, null]}','{"k":{"n":1e400}}','$.a[*]','16/B374D848',
	 '{1,NULL,3}','{"a,b",NULL,"\"q\\"}','{{1,2},{3,4}}','it''s ok','{sad,NULL,"ha\"ppy"}','(1,"x,y")','{"(1,a)","(,)"}',7,'[1,10)','(,5.5]','[2020-01-01,)','{[1,3),[5,7)}','a=>1,b=>NULL','CaSe','nAme','pg_class',4294967295),
	(NULL,NULL,'Infinity','-0'::float8,1e-130,NULL,NULL,NULL,NULL,NULL,'infinity',NULL,NULL,'0001-01-01 BC','294276-12-31 23:59:59.999999+00',NULL,NULL,
	 NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'empty',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL)`

// workload touches each of the tables of everyType in each way.
var workload = []string{
	insertEveryType,
	`UPDATE "Weird ""Schema"."Every ""Type" SET i4 = coalesce(i4, 0) / 2 + 1, moods = moods || '{sad}', t = t || 'é' WHERE "Id" % 2 = 1`,
	`DELETE FROM "Weird ""Schema"."Every ""Type" WHERE "Id" % 5 = 0`,
	`INSERT INTO keyless SELECT i % 3, NULLIF('n' || i % 2, 'n1'), '{"a": 1}', '(1,2)' FROM generate_series(1, 20) i`,
	`UPDATE keyless SET a = 9 WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 1 LIMIT 2)`,
	`DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 2 LIMIT 1)`,
	`INSERT INTO part SELECT i, '2019-12-25'::date + i, 'n' FROM generate_series((SELECT count(*) FROM part)::int, (SELECT count(*) FROM part)::int + 15) i ON CONFLICT DO NOTHING`,
	`UPDATE part SET at = at + 30 WHERE id % 4 = 0`,
	`INSERT INTO parent SELECT coalesce(max(id), 0) + 1, 'p' FROM parent`,
	`INSERT INTO child SELECT coalesce(max(id), 0) + 1, 'c', 1 FROM parent`,
	`UPDATE parent SET a = a || 'x'`,
	`INSERT INTO toast SELECT coalesce(max(id), 0) + 1, 0, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 3000)) FROM toast`,
	`UPDATE toast SET n = n + 1`,
	`UPDATE toast SET id = -id WHERE id > 2 AND -id NOT IN (SELECT id FROM toast)`,
	`INSERT INTO doubly SELECT i, i, 'd' FROM generate_series((SELECT count(*) FROM doubly)::int * 2, (SELECT count(*) FROM doubly)::int * 2 + 3) i ON CONFLICT DO NOTHING`,
	`BEGIN; UPDATE doubly SET code = -code; UPDATE doubly SET code = (SELECT max(id) FROM doubly) + doubly.id + 1; COMMIT`,
	`INSERT INTO referring SELECT id, id FROM doubly ON CONFLICT DO NOTHING`,
	`DELETE FROM doubly WHERE id = (SELECT max(id) FROM doubly)`,
	`BEGIN; INSERT INTO keyless VALUES (100); SAVEPOINT s; INSERT INTO keyless VALUES (101); ROLLBACK TO s; INSERT INTO keyless VALUES (102); COMMIT`,
	`BEGIN; INSERT INTO keyless VALUES (200); ROLLBACK`,
}

func TestEveryShapeIsSeededAndFollowed(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shapes")
	a := p.A.Server.DSN("shapes")
	pgtest.Exec(t, a, everyType...)
	pgtest.Exec(t, a, workload...)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	p.WaitEqual(t, "shapes", "shapes")

	for range 4 {
		pgtest.Exec(t, a, workload...)
	}
	pgtest.Exec(t, a, `BEGIN; INSERT INTO keyless VALUES (300, 'prepared'); PREPARE TRANSACTION 'later'`)
	pgtest.Exec(t, a, `INSERT INTO keyless VALUES (301, 'between')`)
	pgtest.Exec(t, a, `COMMIT PREPARED 'later'`)
	p.WaitEqual(t, "shapes", "shapes")

	pgtest.Exec(t, a, `TRUNCATE toast, keyless`, `TRUNCATE doubly CASCADE`, `TRUNCATE ONLY parent`, `TRUNCATE part_old`)
	pgtest.Exec(t, a, workload...)
	p.WaitEqual(t, "shapes", "shapes")
}

func TestSecondaryRefusesEveryWrite(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.AppDSN("sales"), `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	conn := pgtest.Conn(t, p.B.Server.DSN("sales"))
	if _, err := conn.Exec(t.Context(), `INSERT INTO t VALUES (2)`); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("an INSERT of an ordinary session: %v", err)
	}
	if _, err := conn.Exec(t.Context(), `SET default_transaction_read_only = off`); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{`INSERT INTO t VALUES (2)`, `UPDATE t SET id = 3`, `DELETE FROM t`, `TRUNCATE t`, `CREATE TABLE u (i int)`, `DROP TABLE t`} {
		_, err := conn.Exec(t.Context(), sql)
		if err == nil || !strings.Contains(err.Error(), `secondary of link "sales"`) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if got := pgtest.Table(t, p.B.Server.DSN("sales"), "t"); strings.TrimSpace(got) == "" {
		t.Error("the row is gone")
	}
	pgtest.Exec(t, p.B.Server.DSN("postgres"), `CREATE TABLE elsewhere (i int)`)
}

// traces lists what a link leaves outside its tables.
func traces(t *testing.T, s *linktest.Side, database string) string {
	var b strings.Builder
	for _, sql := range []string{
		`SELECT slot_name FROM pg_replication_slots`,
		`SELECT pubname FROM pg_publication`,
		`SELECT roname FROM pg_replication_origin`,
		`SELECT evtname FROM pg_event_trigger`,
		`SELECT tgname FROM pg_trigger WHERE tgname LIKE 'twinspan%'`,
		`SELECT nspname FROM pg_namespace WHERE nspname LIKE 'twinspan%'`,
		`SELECT d.datname, s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase`,
		`SELECT c.oid::regclass, relreplident FROM pg_class c WHERE relkind = 'r' AND c.oid >= 16384 ORDER BY 1`,
	} {
		fmt.Fprintln(&b, pgtest.Query(t, s.Server.DSN(database), sql))
	}
	return b.String()
}

func TestDeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE keyed (id int PRIMARY KEY)`, `CREATE TABLE keyless (id int)`, `CREATE TABLE nothing (id int)`,
		`ALTER TABLE nothing REPLICA IDENTITY NOTHING`, `INSERT INTO keyless SELECT generate_series(1, 100)`)
	before := traces(t, p.A, "sales")
	for _, force := range []bool{false, true} {
		p.Create(t, "sales", "sales")
		p.WaitPhase(t, "sales", api.Replicating)
		pgtest.Exec(t, a, `UPDATE nothing SET id = 1`, `UPDATE keyless SET id = id + 1`)
		p.WaitEqual(t, "sales", "sales")
		if force {
			p.B.Kill()
		}
		result, err := p.A.Client.DeleteLink(t.Context(), "sales", force)
		if err != nil {
			t.Fatal(err)
		}
		if force {
			p.B.Start()
			pgtest.Eventually(t, linktest.Patience, func() error {
				l, err := p.B.Client.Link(t.Context(), "sales")
				if err != nil {
					return err
				}
				for _, problem := range l.Problems {
					if problem.Code == "link_unknown" {
						return nil
					}
				}
				return fmt.Errorf("the secondary does not say that its primary forgot it: %+v", l.Problems)
			})
			if _, err := p.B.Client.DeleteLink(t.Context(), "sales", true); err != nil {
				t.Fatal(err)
			}
		} else if len(result.Sides) != 2 || result.Sides[0].State != api.Independent || result.Sides[1].State != api.Independent {
			t.Errorf("the result says %+v", result)
		}
		if after := traces(t, p.A, "sales"); after != before {
			t.Errorf("force %v: the primary was\n%s\nand is\n%s", force, before, after)
		}
		if after := traces(t, p.B, "sales"); after != before {
			t.Errorf("force %v: the secondary should be\n%s\nand is\n%s", force, before, after)
		}
		pgtest.Exec(t, p.B.Server.DSN("sales"), `INSERT INTO keyed VALUES (77)`)
		pgtest.Exec(t, p.B.Server.DSN("postgres"), `DROP DATABASE sales`)
	}
}

func TestHalfSeededTwinIsDropped(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.AppDSN("sales"), `CREATE TABLE t (id int PRIMARY KEY, filler text)`,
		`INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 200000) i`)
	// At this rate the copy would take minutes.
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "sales", Peer: "b", MaxRate: 400 << 10}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Seeding)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "sales")
		if err == nil && l.Seeding.BytesDone == 0 {
			err = fmt.Errorf("nothing has been copied: %+v", l.Seeding)
		}
		return err
	})
	result, err := p.B.Client.DeleteLink(t.Context(), "sales", false)
	if err != nil {
		t.Fatal(err)
	}
	if result.Sides[0].State != api.Dropped {
		t.Errorf("the result says %+v", result)
	}
	if left := pgtest.Query(t, p.B.Server.DSN("postgres"), `SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')`); len(left) != 0 {
		t.Errorf("left on the secondary: %v", left)
	}
}

func TestSuspendAndResumeFromEitherSide(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	for i, side := range []*linktest.Side{p.A, p.B} {
		if _, err := side.Client.Suspend(t.Context(), "sales"); err != nil {
			t.Fatal(err)
		}
		p.WaitPhase(t, "sales", api.Suspended)
		pgtest.Exec(t, a, fmt.Sprintf(`INSERT INTO t VALUES (%d)`, i))
		other := []*linktest.Side{p.B, p.A}[i]
		if _, err := other.Client.Resume(t.Context(), "sales"); err != nil {
			t.Fatal(err)
		}
		p.WaitPhase(t, "sales", api.Replicating)
		p.WaitEqual(t, "sales", "sales")
	}
}

func TestIdleDatabaseHoldsNoLog(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "idle")
	p.A.Server.CreateDatabase(t, "busy")
	pgtest.Exec(t, p.A.Server.AppDSN("idle"), `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "idle", "idle")
	p.WaitPhase(t, "idle", api.Replicating)
	busy := p.A.Server.DSN("busy")
	pgtest.Exec(t, busy, `CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 200000) i`)
	end := pgtest.Query(t, busy, `SELECT pg_current_wal_lsn()`)[0][0]
	pgtest.Eventually(t, linktest.Patience, func() error {
		behind := pgtest.Query(t, busy, `SELECT confirmed_flush_lsn, confirmed_flush_lsn >= $1::pg_lsn FROM pg_replication_slots WHERE slot_name LIKE 'twinspan%'`, end)
		if len(behind) == 1 && (behind[0][1] == "t" || behind[0][1] == "true") {
			return nil
		}
		return fmt.Errorf("the slot stands at %v, the log at %s", behind, end)
	})
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{pgtest.WithSetting("wal_level", "replica")}})
	p.A.Server.CreateDatabase(t, "sales")
	_, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "sales", Peer: "b"})
	if e, ok := err.(*api.Error); !ok || e.Code != "wal_level_low" || !strings.Contains(e.Hint, "wal_level") {
		t.Errorf("wal_level: %#v", err)
	}
	_, err = p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "x", Database: "missing", Peer: "b"})
	if e, ok := err.(*api.Error); !ok || e.Code != "database_missing" {
		t.Errorf("a database that is not there: %#v", err)
	}
	_, err = p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "x", Database: "sales", Peer: "nobody"})
	if e, ok := err.(*api.Error); !ok || e.Code != "peer_unknown" {
		t.Errorf("a peer that is not there: %#v", err)
	}
	// The other way round: b's database is fine, a's instance can hold a twin.
	p.B.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.B.Server.AppDSN("sales"), `CREATE TABLE t (id int PRIMARY KEY)`)
	pgtest.Exec(t, p.A.Server.AppDSN("sales"), `CREATE TABLE t (id int PRIMARY KEY)`)
	// b's operator lets a copy it.
	if _, err := p.B.Client.GrantPeer(t.Context(), "a", api.Grant{Database: "sales", Direction: "from-here", Operations: []string{"link"}}); err != nil {
		t.Fatal(err)
	}
	_, err = p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "x", Database: "sales", Peer: "b", FromPeer: true})
	if e, ok := err.(*api.Error); !ok || e.Code != "target_not_empty" {
		t.Errorf("a target that is not empty: %#v", err)
	}
	if left := pgtest.Query(t, p.B.Server.DSN("sales"), `SELECT nspname FROM pg_namespace WHERE nspname = 'twinspan'`); len(left) != 0 {
		t.Error("a refused link left its schema")
	}
	// It could not become the primary, which has to be accepted.
	wanted := api.CreateLink{Name: "x", Database: "twin", PeerDatabase: "sales", Peer: "b", FromPeer: true}
	_, err = p.A.Client.CreateLink(t.Context(), wanted)
	if e, ok := err.(*api.Error); !ok || e.Code != "wal_level_too_low" {
		t.Errorf("a secondary that cannot be primary: %#v", err)
	}
	wanted.Accept = []string{"wal_level_too_low"}
	if _, err = p.A.Client.CreateLink(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "x", api.Replicating)
	pgtest.Exec(t, p.B.Server.DSN("sales"), `INSERT INTO t VALUES (1)`)
	pgtest.Eventually(t, linktest.Patience, func() error { return pgtest.DiffError(p.B.Server.DSN("sales"), p.A.Server.DSN("twin")) })
}
