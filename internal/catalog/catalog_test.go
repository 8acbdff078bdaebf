package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	linkID  = "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11"
	otherID = "7c1e2d3f-0000-4000-8000-00000000000a"
	agentA  = "11111111-1111-4111-8111-111111111111"
	agentB  = "22222222-2222-4222-8222-222222222222"
)

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(stop)
	return ctx
}

// open gives a session as agents have them, in a database of the test's own.
func open(t testing.TB) (*pgx.Conn, string) {
	t.Helper()
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	return connect(t, dsn), dsn
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func install(t testing.TB, conn *pgx.Conn) error {
	ctx := testContext(t)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return catalog.Install(ctx, tx) })
}

func sample() *catalog.Link {
	return &catalog.Link{
		ID: linkID, Name: `sales "EU" 'x'`, Agent: agentA, Peer: "berlin", PeerAgent: agentB, PeerDatabase: "Sales", Role: "secondary",
		Phase: "creating", Epoch: 7, Mode: "sync", SyncTimeout: 10, OnConflict: "cancel=5s", OnIsolation: "serve", CreatedDatabase: true, PrimaryAddress: "db.example:5432",
	}
}

func seeded(t testing.TB) (*pgx.Conn, string, *catalog.Link) {
	t.Helper()
	conn, dsn := open(t)
	if err := install(t, conn); err != nil {
		t.Fatal(err)
	}
	l := sample()
	if err := catalog.Insert(testContext(t), conn, l); err != nil {
		t.Fatal(err)
	}
	return conn, dsn, l
}

func get(t testing.TB, conn *pgx.Conn, id string) *catalog.Link {
	t.Helper()
	l, err := catalog.Get(testContext(t), conn, id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// objects lists everything of the database that names twinspan.
const objects = `
SELECT 'class ' || n.nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname = 'twinspan' OR relname LIKE '%twinspan%'
UNION ALL SELECT 'proc ' || proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname = 'twinspan'
UNION ALL SELECT 'type ' || typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE n.nspname = 'twinspan'
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%twinspan%'
UNION ALL SELECT 'acl ' || defaclobjtype::text FROM pg_default_acl
UNION ALL SELECT 'description ' || description FROM pg_description WHERE description LIKE '%winspan%' ORDER BY 1`

func TestInstallTwiceAndRemove(t *testing.T) {
	conn, dsn := open(t)
	ctx := testContext(t)
	if have, err := catalog.Present(ctx, conn); have || err != nil {
		t.Fatalf("present before: %v %v", have, err)
	}
	if err := install(t, conn); err != nil {
		t.Fatal(err)
	}
	if err := catalog.Insert(ctx, conn, sample()); err != nil {
		t.Fatal(err)
	}
	if err := install(t, conn); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	if l := get(t, conn, linkID); l.Name != sample().Name {
		t.Errorf("the second installation lost the link: %+v", l)
	}
	if have, err := catalog.Present(ctx, conn); !have || err != nil {
		t.Errorf("present: %v %v", have, err)
	}
	if got := pgtest.Table(t, dsn, "twinspan.version"); got != "(1)\n" {
		t.Errorf("version %s", got)
	}
	for range 2 { // the second time there is nothing
		if err := catalog.Remove(ctx, conn); err != nil {
			t.Fatal(err)
		}
		if left := pgtest.Query(t, dsn, objects); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if have, err := catalog.Present(ctx, conn); have || err != nil {
		t.Errorf("present after: %v %v", have, err)
	}
}

func TestInstallAtOnce(t *testing.T) {
	_, dsn := open(t)
	var group errgroup.Group
	for range 8 {
		conn := connect(t, dsn)
		group.Go(func() error { return install(t, conn) })
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOthersSchemaIsLeftAlone(t *testing.T) {
	conn, dsn := open(t)
	pgtest.Exec(t, dsn, `CREATE SCHEMA twinspan; CREATE TABLE twinspan.mine (id int)`)
	if err := install(t, conn); problem.CodeOf(err) != "schema_taken" || problem.KindOf(err) != problem.Conflict {
		t.Errorf("got %v", err)
	}
	if got := pgtest.Query(t, dsn, `SELECT relname FROM pg_class WHERE relnamespace = 'twinspan'::regnamespace`); len(got) != 1 {
		t.Errorf("the schema holds %v", got)
	}
}

func TestNewerLayoutIsRefused(t *testing.T) {
	conn, dsn, _ := seeded(t)
	pgtest.Exec(t, dsn, `UPDATE twinspan.version SET version = version + 1`)
	before := pgtest.Table(t, dsn, "twinspan.link")
	if _, err := catalog.Present(testContext(t), conn); problem.CodeOf(err) != "catalog_newer" || problem.KindOf(err) != problem.Incompatible {
		t.Errorf("Present: %v", err)
	}
	if err := install(t, conn); problem.CodeOf(err) != "catalog_newer" {
		t.Errorf("Install: %v", err)
	}
	if after := pgtest.Table(t, dsn, "twinspan.link"); after != before {
		t.Errorf("it was changed: %s", after)
	}
}

func TestLinkRoundTrip(t *testing.T) {
	conn, _, l := seeded(t)
	ctx := testContext(t)
	got := get(t, conn, l.ID)
	if time.Since(got.CreatedAt).Abs() > time.Hour {
		t.Errorf("made at %v", got.CreatedAt)
	}
	l.CreatedAt, l.Notices = got.CreatedAt, got.Notices
	if !reflect.DeepEqual(got, l) {
		t.Errorf("got  %+v\nwant %+v", got, l)
	}
	if err := catalog.SetStart(ctx, conn, l, 0x1A_2B3C4D5E, "7123456789012345678"); err != nil {
		t.Fatal(err)
	}
	notices := []catalog.Notice{{At: time.Now().UTC().Truncate(time.Microsecond), Code: "identity_full", Subject: `a."B"`, Text: "it's done"}, {Code: "x", Text: "y"}}
	if err := catalog.AddNotices(ctx, conn, l, notices[:1]); err != nil {
		t.Fatal(err)
	}
	if err := catalog.AddNotices(ctx, conn, l, notices[1:]); err != nil {
		t.Fatal(err)
	}
	if err := catalog.SetDeleting(ctx, conn, l, true); err != nil {
		t.Fatal(err)
	}
	l.Phase, l.Seeded, l.Suspended, l.Change = "suspended", true, true, 3
	if err := catalog.Store(ctx, conn, l); err != nil {
		t.Fatal(err)
	}
	if err := catalog.SetRenewing(ctx, conn, l); err != nil || !get(t, conn, l.ID).Renewing {
		t.Errorf("not renewing: %v", err)
	}
	if err := catalog.SetRenewed(ctx, conn, l, 0x7B, 4, "7"); err != nil {
		t.Fatal(err)
	}
	if renewed := get(t, conn, l.ID); renewed.Renewing || renewed.StartLSN != 0x7B || renewed.SystemID != "7" || renewed.Timeline != 4 {
		t.Errorf("renewed: %+v", renewed)
	}
	if err := catalog.SetStart(ctx, conn, l, 0x1A_2B3C4D5E, "7123456789012345678"); err != nil {
		t.Fatal(err)
	}
	if err := catalog.SetTimeline(ctx, conn, l, 3); err != nil {
		t.Fatal(err)
	}
	l.Timeline = 3
	l.Mode, l.SyncTimeout, l.SettingChange = "sync", 30, 7
	if err := catalog.SetSettings(ctx, conn, l); err != nil {
		t.Fatal(err)
	}
	l.StartLSN, l.SystemID, l.Notices, l.Deleting = 0x1A_2B3C4D5E, "7123456789012345678", notices, true
	if got = get(t, conn, l.ID); !reflect.DeepEqual(got, l) {
		t.Errorf("got  %+v\nwant %+v", got, l)
	}
	if err := catalog.SetDeleting(ctx, conn, l, false); err != nil || get(t, conn, l.ID).Deleting {
		t.Errorf("still deleting: %v", err)
	}
}

func TestProblemRoundTrip(t *testing.T) {
	conn, _, l := seeded(t)
	ctx := testContext(t)
	cause := errors.New("line one\n  line two")
	l.Problem = problem.Wrap(cause, problem.Diverged, "row_missing", `table "Ünö" has 'no' such row \ %%d`).On(`public."Ünö"`).WithHint(`say "yes"`)
	for range 2 { // what was read can be stored again
		if err := catalog.Store(ctx, conn, l); err != nil {
			t.Fatal(err)
		}
		got := get(t, conn, l.ID)
		want := problem.Error{Kind: problem.Diverged, Code: "row_missing", Subject: `public."Ünö"`,
			Text: `table "Ünö" has 'no' such row \ %d: line one line two`, Hint: `say "yes"`}
		if got.Problem == nil || *got.Problem != want {
			t.Fatalf("got %+v\nwant %+v", got.Problem, want)
		}
		l = got
	}
	l.Problem = nil
	if err := catalog.Store(ctx, conn, l); err != nil {
		t.Fatal(err)
	}
	if got := get(t, conn, l.ID); got.Problem != nil {
		t.Errorf("it stayed: %+v", got.Problem)
	}
}

// TestStaleEpochChangesNothing tries every change with an epoch that the link has
// left, and on a link that is gone.
func TestStaleEpochChangesNothing(t *testing.T) {
	conn, dsn, l := seeded(t)
	ctx := testContext(t)
	pgtest.Exec(t, dsn, `UPDATE twinspan.link SET epoch = epoch + 1`)
	before := pgtest.Table(t, dsn, "twinspan.link")
	ahead, gone := *l, *l
	ahead.Epoch += 2
	gone.ID = otherID
	for name, change := range map[string]func(l *catalog.Link) error{
		"Store":       func(l *catalog.Link) error { l.Phase = "broken"; return catalog.Store(ctx, conn, l) },
		"SetStart":    func(l *catalog.Link) error { return catalog.SetStart(ctx, conn, l, 1, "1") },
		"SetRenewing": func(l *catalog.Link) error { return catalog.SetRenewing(ctx, conn, l) },
		"SetRenewed":  func(l *catalog.Link) error { return catalog.SetRenewed(ctx, conn, l, 1, 1, "1") },
		"SetTimeline": func(l *catalog.Link) error { return catalog.SetTimeline(ctx, conn, l, 1) },
		"SetSettings": func(l *catalog.Link) error { l.Mode = "sync"; return catalog.SetSettings(ctx, conn, l) },
		"SetDeleting": func(l *catalog.Link) error { return catalog.SetDeleting(ctx, conn, l, true) },
		"AddNotices":  func(l *catalog.Link) error { return catalog.AddNotices(ctx, conn, l, []catalog.Notice{{Text: "x"}}) },
	} {
		for _, l := range []*catalog.Link{l, &ahead, &gone} {
			if err := change(l); problem.KindOf(err) != problem.Conflict || problem.CodeOf(err) != "link_moved_on" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if after := pgtest.Table(t, dsn, "twinspan.link"); after != before {
		t.Errorf("before %safter %s", before, after)
	}
}

func TestLinksOfAnAgent(t *testing.T) {
	conn, dsn, _ := seeded(t)
	ctx := testContext(t)
	second := sample()
	second.ID, second.Name, second.Role = otherID, "aardvark", "primary"
	third := sample()
	third.ID, third.Name, third.Agent = agentA, "other agent's", agentB
	for _, l := range []*catalog.Link{second, third} {
		if err := catalog.Insert(ctx, conn, l); err != nil {
			t.Fatal(err)
		}
	}
	for _, taken := range []string{"id", "name"} {
		l := sample()
		if taken == "id" {
			l.Name = "unheard of"
		} else {
			l.ID = agentB
		}
		if err := catalog.Insert(ctx, conn, l); problem.CodeOf(err) != "link_exists" || problem.KindOf(err) != problem.Conflict {
			t.Errorf("the same %s: %v", taken, err)
		}
	}
	links, err := catalog.Links(ctx, conn, agentA)
	if err != nil || len(links) != 2 || links[0].Name != "aardvark" || links[1].ID != linkID {
		t.Errorf("%v %v", links, err)
	}
	// Whatever is known of a link goes with it.
	if kept := pgtest.Query(t, dsn, `SELECT attrelid::regclass FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
		WHERE relnamespace = 'twinspan'::regnamespace AND relkind = 'r' AND attname = 'link' AND NOT attisdropped AND NOT EXISTS (SELECT FROM pg_constraint f
			WHERE f.conrelid = attrelid AND f.contype = 'f' AND f.confdeltype = 'c' AND a.attnum = ANY (f.conkey))`); len(kept) > 0 {
		t.Errorf("kept after a link's end: %v", kept)
	}
	pgtest.Exec(t, dsn, `INSERT INTO twinspan.lost (link, epoch, parted, read_to) SELECT id, 2, '0/1', '0/1' FROM twinspan.link`)
	apply := connect(t, dsn)
	if _, err := apply.Exec(ctx, `SET session_replication_role = replica`); err != nil {
		t.Fatal(err)
	}
	var role string
	err = pgx.BeginFunc(ctx, apply, func(tx pgx.Tx) error {
		if err := catalog.Delete(ctx, tx, linkID); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SHOW session_replication_role`).Scan(&role)
	})
	if left := pgtest.Query(t, dsn, `SELECT count(*) FROM twinspan.lost WHERE link = '`+linkID+`'`)[0][0]; err != nil || left != "0" || role != "replica" {
		t.Fatalf("%s records are left, role %s, %v", left, role, err)
	}
	if _, err := catalog.Get(ctx, conn, linkID); problem.KindOf(err) != problem.NotFound || problem.CodeOf(err) != "link_unknown" {
		t.Errorf("after its removal: %v", err)
	}
	if links, err = catalog.Links(ctx, conn, agentA); err != nil || len(links) != 1 {
		t.Errorf("%v %v", links, err)
	}
}

// TestSchemaIsClosed looks in as a role without rights.
func TestSchemaIsClosed(t *testing.T) {
	_, dsn, _ := seeded(t)
	conn := connect(t, dsn)
	pgtest.Exec(t, dsn, `DROP ROLE IF EXISTS nobody_here; CREATE ROLE nobody_here`)
	if _, err := conn.Exec(testContext(t), `SET ROLE nobody_here; SELECT * FROM twinspan.link`); pg.SQLState(err) != "42501" {
		t.Errorf("got %v", err)
	}
}

// Default privileges give rights as an object is made: to everybody, to a role, to the database's owner.
func TestDefaultPrivilegesGiveNothingHere(t *testing.T) {
	s := pgtest.Shared(t)
	name := s.Database(t)
	dsn := s.DSN(name)
	owner, other := name+"_owner", name+"_other"
	pgtest.Exec(t, dsn, `CREATE ROLE `+owner, `CREATE ROLE `+other, `ALTER DATABASE `+name+` OWNER TO `+owner)
	t.Cleanup(func() {
		pgtest.Exec(t, dsn, `ALTER DATABASE `+name+` OWNER TO CURRENT_USER`, `DROP OWNED BY `+owner+`, `+other)
		pgtest.Exec(t, s.DSN("postgres"), `DROP ROLE `+owner+`, `+other)
	})
	for _, what := range []string{"TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"} {
		pgtest.Exec(t, dsn, `ALTER DEFAULT PRIVILEGES GRANT ALL ON `+what+` TO PUBLIC`, `ALTER DEFAULT PRIVILEGES GRANT ALL ON `+what+` TO `+owner+`, `+other+` WITH GRANT OPTION`)
	}
	open := func() (list [][]string) {
		return pgtest.Query(t, dsn, `SELECT r.rolname, 'schema', 'twinspan' FROM pg_roles r WHERE r.rolname IN ($1, $2) AND (has_schema_privilege(r.oid, 'twinspan', 'CREATE') OR r.rolname = $2 AND has_schema_privilege(r.oid, 'twinspan', 'USAGE'))
			UNION ALL SELECT r.rolname, 'table', c.relname FROM pg_roles r, pg_class c WHERE r.rolname IN ($1, $2) AND c.relnamespace = 'twinspan'::regnamespace AND c.relkind = 'r'
				AND (has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, SELECT WITH GRANT OPTION') OR r.rolname = $2 AND has_table_privilege(r.oid, c.oid, 'SELECT'))
			UNION ALL SELECT r.rolname, 'sequence', c.relname FROM pg_roles r, pg_class c WHERE r.rolname IN ($1, $2) AND c.relnamespace = 'twinspan'::regnamespace AND c.relkind = 'S'
				AND has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')
			UNION ALL SELECT r.rolname, 'function', p.proname FROM pg_roles r, pg_proc p WHERE r.rolname IN ($1, $2) AND p.pronamespace = 'twinspan'::regnamespace AND has_function_privilege(r.oid, p.oid, 'EXECUTE')`, owner, other)
	}
	conn := connect(t, dsn)
	if err := catalog.Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if list := open(); len(list) > 0 {
		t.Errorf("as it is made, open are %v", list)
	}
	pgtest.Exec(t, dsn, `CREATE TABLE twinspan.more (id serial)`, `CREATE FUNCTION twinspan.more() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `GRANT ALL ON SCHEMA twinspan TO `+other, `GRANT ALL ON twinspan.link TO `+owner)
	if len(open()) < 5 {
		t.Fatalf("nothing was open: %v", open())
	}
	for range 2 { // the second time there is nothing to do
		if err := catalog.Readable(testContext(t), conn); err != nil {
			t.Fatal(err)
		}
		if list := open(); len(list) > 0 {
			t.Errorf("open are %v", list)
		}
		if rows := pgtest.Query(t, dsn, `SELECT count(*) FROM pg_class WHERE relnamespace = 'twinspan'::regnamespace AND relkind IN ('r', 'S') AND NOT has_table_privilege($1, oid, 'SELECT')
			UNION ALL SELECT 1 WHERE NOT has_schema_privilege($1, 'twinspan', 'USAGE')`, owner); fmt.Sprint(rows) != "[[0]]" {
			t.Errorf("the owner cannot read all: %v", rows)
		}
	}
}

// TestEveryTableIsUpdatable publishes the schema as a link does.
func TestEveryTableIsUpdatable(t *testing.T) {
	_, dsn, _ := seeded(t)
	pgtest.Exec(t, dsn, `CREATE PUBLICATION p FOR ALL TABLES; UPDATE twinspan.version SET version = version; DELETE FROM twinspan.version`)
	keyless := pgtest.Query(t, dsn, `SELECT relname FROM pg_class c WHERE relnamespace = 'twinspan'::regnamespace AND relkind = 'r'
		AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)`)
	if len(keyless) > 0 {
		t.Errorf("without a key: %v", keyless)
	}
}

func TestObjectName(t *testing.T) {
	if got := catalog.ObjectName(linkID); got != "twinspan_0b9a4b4e6f7e4b7e9f602f1c0e8d7a11" || len(got) > 63 || strings.Contains(got, "-") {
		t.Error(got)
	}
}

func TestWatchRoundTrip(t *testing.T) {
	conn, _ := open(t)
	if err := install(t, conn); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	l := catalog.Link{ID: linkID, Name: "n", Agent: agentA, Peer: "p", PeerAgent: agentB, PeerDatabase: "d", Role: "secondary", Phase: "replicating", Epoch: 1, Mode: "async"}
	if err := catalog.Insert(ctx, conn, &l); err != nil {
		t.Fatal(err)
	}
	got, err := catalog.GetWatch(ctx, conn, linkID)
	if err != nil || !reflect.DeepEqual(got, catalog.Watch{}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	want := catalog.Watch{Compared: true, Known: []catalog.Drift{{Kind: "table", Name: `"T" 'x'`, State: "differs", Primary: "a", Secondary: "b", Accepted: true}},
		Found: []catalog.Drift{{Kind: "index", Name: "i", State: "missing", Primary: "c"}}}
	for range 2 {
		if err := catalog.StoreWatch(ctx, conn, linkID, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err = catalog.GetWatch(ctx, conn, linkID); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if other := want.Known[0]; !other.Same(catalog.Drift{Kind: "table", Name: `"T" 'x'`, State: "differs", Primary: "a", Secondary: "b"}) || other.Same(want.Found[0]) {
		t.Error("drifts are told apart wrongly")
	}
}
