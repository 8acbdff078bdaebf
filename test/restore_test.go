package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// restored restores a database and waits for it to be over.
func restored(t *testing.T, s *linktest.Side, in api.RestoreDatabase) api.DatabaseCopy {
	t.Helper()
	v, err := s.Client.RestoreDatabase(t.Context(), in)
	if err != nil {
		t.Fatalf("restore %q: %v", in.Database, err)
	}
	return awaitCopy(t, s, v.ID)
}

// refusedRestore sees that a restore is refused at once, with a code.
func refusedRestore(t *testing.T, s *linktest.Side, in api.RestoreDatabase, code string) {
	t.Helper()
	v, err := s.Client.RestoreDatabase(t.Context(), in)
	var sent *api.Error
	if !errors.As(err, &sent) || sent.Code != code {
		t.Errorf("%+v: %v, %+v; wanted %s", in, err, v, code)
	}
}

// now is a moment by the server's clock. One that follows is later.
func now(t *testing.T, s *linktest.Side) *time.Time {
	t.Helper()
	text := pgtest.Query(t, s.DSN("postgres"),
		`SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM pg_sleep(0.01)`)[0][0]
	moment, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return &moment
}

// leavesNothing waits until nothing of a restore is left on an agent's side: no directory, no process, no unfinished
// database.
func leavesNothing(t *testing.T, s *linktest.Side) {
	t.Helper()
	pgtest.Await(t, linktest.Patience, "nothing of the restore is left", func() error {
		entries, err := os.ReadDir(s.Dir.Restores())
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s is there", entries[0].Name())
		}
		if pids := working(t, s.Dir.Restores()); len(pids) > 0 {
			return fmt.Errorf("processes %v work there", pids)
		}
		if rows := pgtest.Query(t, s.DSN("postgres"),
			`SELECT datname FROM pg_database WHERE datname LIKE 'twinspan copy%'`); len(rows) > 0 {
			return fmt.Errorf("%v", rows)
		}
		return nil
	})
}

// working lists the processes whose working directory lies below a directory.
func working(t *testing.T, dir string) (pids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if cwd, err := os.Readlink(l); err == nil && strings.HasPrefix(cwd, dir+"/") {
			pids = append(pids, filepath.Base(filepath.Dir(l)))
		}
	}
	return pids
}

// isNobodys sees that the temporary server of a restore is reached by nobody but the agent.
func isNobodys(t *testing.T, s *linktest.Side) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir.Restores(), "*/data/postmaster.pid"))
	if err != nil || len(files) != 1 {
		t.Fatalf("temporary servers: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 6 {
		t.Fatalf("%q, %v", text, err)
	}
	if socket, listen := lines[4], lines[5]; listen != "" {
		t.Errorf("it listens on %q", listen)
	} else if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its socket lies in %v, %v", info, err)
	}
	_, err = pgtest.Try(t.Context(), "host="+lines[4]+" port="+lines[3]+" user=boss password=boss dbname=postgres sslmode=disable", `SELECT 1`)
	if err == nil || !strings.Contains(err.Error(), "no pg_hba.conf entry") {
		t.Errorf("another role: %v", err)
	}
}

// TestRestores restores databases of a managed instance while everything goes on.
func TestRestores(t *testing.T) {
	t.Parallel()
	if !linktest.HaveBackups(t) {
		return
	}
	s := linktest.Managed(t, "b", nil)
	database := `Weird ""Name 100%'s`
	other := s.DSN("postgres")
	pgtest.Exec(t, other, `CREATE DATABASE `+sqlname.Quote(database), `CREATE DATABASE reference`,
		`CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'boss'`)
	dsn := s.DSN(database)
	pgtest.Exec(t, dsn, copySchema, `ALTER DATABASE `+sqlname.Quote(database)+` CONNECTION LIMIT 77`)
	first := firstBackup(t, s)
	pgtest.Await(t, linktest.Patience, "a moment behind the backup", func() error {
		if from := first.Backups[0].EndedAt.Add(time.Second); now(t, s).Before(from) {
			return fmt.Errorf("it can be restored from %s", from)
		}
		return nil
	})

	t.Run("refused", func(t *testing.T) {
		past, future := now(t, s).Add(-time.Hour), now(t, s).Add(time.Hour)
		for code, in := range map[string]api.RestoreDatabase{
			"restore_database_unknown": {Database: "nobody", Name: "x", At: now(t, s)},
			"restore_in_future":        {Database: database, Name: "x", At: &future},
			"restore_too_early":        {Database: database, Name: "x", At: &past},
			"restore_not_dropped":      {Database: database, Name: "x", Deleted: true},
			"restore_target":           {Database: database, Name: "x"},
			"database_exists":          {Database: database, Name: "reference", At: now(t, s)},
			"database_name_invalid":    {Database: database, Name: "twinspan copy x", At: now(t, s)},
			"peer_unknown":             {Database: database, Name: "x", At: now(t, s), Peer: "nobody"},
		} {
			refusedRestore(t, s, in, code)
		}
	})

	ledgers := []*steady{startLedger(t, dsn, 0), startLedger(t, dsn, 1)}
	t.Run("under writes", func(t *testing.T) {
		ledgers[0].awaitSteps(t, 50)
		ledgers[1].awaitSteps(t, 50)
		least := ledgers[0].steps()
		at := now(t, s)
		most := ledgers[0].steps() + 1 // one was under way
		ledgers[0].awaitSteps(t, 50)
		v := restored(t, s, api.RestoreDatabase{Database: database, Name: "before", At: at})
		mustBeCopied(t, v)
		ledgers[0].awaitSteps(t, 1)
		for _, l := range ledgers {
			l.stop()
		}
		if r := v.Restore; r == nil || !r.Reached || r.EndOfLog || r.Backup != first.Backups[0].Label ||
			r.LastAt == nil || r.LastAt.After(*at) || at.Sub(*r.LastAt) > time.Minute {
			t.Errorf("%+v", v.Restore)
		}
		holdsStateAt(t, s.DSN("reference"), s.DSN("before"), v, ledgers)
		if n, err := strconv.Atoi(pgtest.Query(t, s.DSN("before"),
			`SELECT max(id) FROM ledger0`)[0][0]); err != nil || n < least || n > most {
			t.Errorf("%d steps are in, %v; %d to %d had been done at %s", n, err, least, most, at)
		}
		if limit := pgtest.Query(t, other,
			`SELECT datconnlimit FROM pg_database WHERE datname = 'before'`)[0][0]; limit != "77" {
			t.Errorf("the limit of connections is %s", limit)
		}
		leavesNothing(t, s)
	})
	t.Run("quiet", func(t *testing.T) {
		// What is prepared had not committed, and locks what it locked.
		pgtest.Exec(t, dsn, `BEGIN; DELETE FROM nokey; LOCK TABLE nokey, still; PREPARE TRANSACTION 'it''s'`)
		v := restored(t, s, api.RestoreDatabase{Database: database, Name: `after "all"`, At: now(t, s)})
		pgtest.Exec(t, dsn, `ROLLBACK PREPARED 'it''s'`)
		mustBeCopied(t, v)
		if v.Restore.EndOfLog || v.Restore.LastAt == nil {
			t.Errorf("%+v", v.Restore)
		}
		pgtest.Equal(t, dsn, s.DSN(`after "all"`))
	})
	space := filepath.Join(os.TempDir(), fmt.Sprintf("twinspan-space-%d", os.Getpid())) // with no quote
	t.Cleanup(func() { os.RemoveAll(space) })
	t.Run("dropped", func(t *testing.T) {
		name := "gone's"
		pgtest.Exec(t, other, `COPY (SELECT 1) TO PROGRAM `+sqlname.Literal(`mkdir "`+space+`"`),
			`CREATE TABLESPACE "Space's" LOCATION `+sqlname.Literal(space))
		pgtest.Exec(t, other, `CREATE DATABASE `+sqlname.Quote(name)+` CONNECTION LIMIT 55`)
		pgtest.Exec(t, s.DSN(name),
			`CREATE TABLE t (id int PRIMARY KEY, v text) TABLESPACE "Space's"`,
			`INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 1000) g`)
		backupNow(t, s, "diff")
		if _, err := s.Client.RestorableDatabases(t.Context()); err != nil { // it is known now
			t.Fatal(err)
		}
		pgtest.Exec(t, s.DSN(name),
			`INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1001, 1500) g; UPDATE t SET v = 'changed' WHERE id <= 10`)
		want := pgtest.Query(t, s.DSN(name), `SELECT * FROM t ORDER BY id`)
		at := now(t, s)
		pgtest.Exec(t, other, `DROP DATABASE `+sqlname.Quote(name))
		if _, err := s.Client.RestorableDatabases(t.Context()); err != nil { // that it is gone is known, too
			t.Fatal(err)
		}
		refusedRestore(t, s, api.RestoreDatabase{Database: name, Name: "x", At: now(t, s)}, "restore_gone")
		for as, in := range map[string]api.RestoreDatabase{"back": {Deleted: true}, "back by time": {At: at}} {
			in.Database, in.Name = name, as
			v := restored(t, s, in)
			mustBeCopied(t, v)
			if got := pgtest.Query(t, s.DSN(as), `SELECT * FROM t ORDER BY id`); len(want) != 1500 ||
				!slices.EqualFunc(got, want, slices.Equal[[]string]) {
				t.Errorf("%s has %d rows of %d, or others", as, len(got), len(want))
			}
			if limit := pgtest.Query(t, other,
				`SELECT datconnlimit FROM pg_database WHERE datname = `+sqlname.Literal(as))[0][0]; limit != "55" {
				t.Errorf("%s: the limit of connections is %s", as, limit)
			}
		}
		list, err := s.Client.RestorableDatabases(t.Context())
		i := slices.IndexFunc(list, func(d api.RestorableDatabase) bool { return d.Name == name })
		if err != nil || i < 0 || !list[i].Dropped || list[i].DroppedBy == nil || list[i].Until == nil ||
			list[i].Until.After(*list[i].DroppedBy) {
			t.Errorf("%+v, %v", list, err)
		}
	})
	t.Run("missing log", func(t *testing.T) {
		for range 3 {
			pgtest.Exec(t, dsn, `UPDATE still SET note = 'switched' WHERE id = 1`, `SELECT pg_switch_wal()`)
		}
		at := now(t, s)
		segments := func() []string {
			all, err := filepath.Glob(filepath.Join(first.Policy.Repository, "archive/main/*/*/*-*"))
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(all)
			return all
		}
		last := pgtest.Query(t, other, `SELECT pg_walfile_name(pg_current_wal_lsn() - 1)`)[0][0]
		pgtest.Exec(t, other, `SELECT pg_current_xact_id()`, `SELECT pg_switch_wal()`)
		pgtest.Await(t, linktest.Patience, "the log is archived", func() error {
			if all := segments(); filepath.Base(all[len(all)-1]) < last {
				return fmt.Errorf("up to %s", all[len(all)-1])
			}
			return nil
		})
		all := segments()
		away := all[len(all)-3]
		if err := os.Rename(away, filepath.Join(s.Dir.Path(), "away")); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Rename(filepath.Join(s.Dir.Path(), "away"), away); err != nil {
				t.Error(err)
			}
		}()
		v := restored(t, s, api.RestoreDatabase{Database: database, Name: "x", At: at})
		if v.State != api.CopyFailed || v.Problem.Code != "restore_log_missing" ||
			v.Problem.Subject != filepath.Base(away)[:24] {
			t.Errorf("%+v, %+v; %s is away", v, v.Problem, away)
		}
		leavesNothing(t, s)
	})
	t.Run("flipped bytes", func(t *testing.T) {
		defer flip(t, filepath.Join(first.Policy.Repository, "backup/main", first.Backups[0].Label), 200)()
		v := restored(t, s, api.RestoreDatabase{Database: database, Name: "x", At: now(t, s)})
		if v.State != api.CopyFailed || v.Problem.Code != "backup_damaged" || v.Problem.Hint == "" {
			t.Errorf("%+v, %+v", v, v.Problem)
		}
		leavesNothing(t, s)
	})
	t.Run("killed", func(t *testing.T) {
		for _, phase := range []struct {
			name    string
			reached func(api.DatabaseCopy) bool
		}{
			{"recovering", func(v api.DatabaseCopy) bool {
				return strings.HasPrefix(v.Step, "bringing") || strings.HasPrefix(v.Step, "recovering")
			}},
			{"copying", func(v api.DatabaseCopy) bool { return v.BytesDone > 0 }},
		} {
			v, err := s.Client.RestoreDatabase(t.Context(),
				api.RestoreDatabase{Database: database, Name: "half", At: now(t, s), BytesPerSecond: 100_000})
			if err != nil {
				t.Fatal(err)
			}
			pgtest.Await(t, linktest.Patience, phase.name, func() error {
				if v, err = s.Client.Copy(t.Context(), v.ID); err == nil && v.State != api.Copying {
					t.Fatalf("%s: %+v, %+v", phase.name, v, v.Problem)
				}
				if err == nil && !phase.reached(v) {
					err = fmt.Errorf("%s", v.Step)
				}
				return err
			})
			if phase.name == "copying" {
				backupNow(t, s, "incr") // which removes nothing
				isNobodys(t, s)
			}
			s.Kill()
			s.Start()
			leavesNothing(t, s)
		}
		if rows := pgtest.Query(t, other, `SELECT datname FROM pg_database WHERE datname = 'half'`); len(rows) > 0 {
			t.Error("a half-made database has the name")
		}
	})
	a := linktest.Managed(t, "a", func(c *config.Config) { c.Postgres.NoBackups = true })
	t.Run("a twin, to a peer", func(t *testing.T) {
		a.Pair(t, s)
		pgtest.Exec(t, a.DSN("postgres"), `CREATE DATABASE sales`)
		pgtest.Exec(t, a.DSN("sales"), copySchema)
		if _, err := a.Client.CreateLink(t.Context(),
			api.CreateLink{Name: "sales", Database: "sales", Peer: "b", PeerDatabase: "sales"}); err != nil {
			t.Fatal(err)
		}
		pair := &linktest.Pair{A: a, B: s}
		pair.WaitPhase(t, "sales", api.Replicating)
		sales := startLedger(t, a.DSN("sales"), 0)
		pgtest.Await(t, linktest.Patience, "the twin has steps", func() error {
			if n := pgtest.Query(t, s.DSN("sales"), `SELECT count(*) FROM ledger0`)[0][0]; len(n) < 3 {
				return fmt.Errorf("%s", n)
			}
			return nil
		})
		at := now(t, s)
		sales.awaitSteps(t, 50)
		in := api.RestoreDatabase{Database: "sales", Name: "sales then", At: at, Peer: "a"}
		if v := restored(t, s, in); v.State != api.CopyFailed || v.Problem.Code != "peer_not_granted" {
			t.Fatalf("without a grant: %+v, %+v", v, v.Problem)
		}
		if _, err := a.Client.GrantPeer(t.Context(), "b",
			api.Grant{Database: in.Name, Direction: "to-here", Operations: []string{"link"}}); err != nil {
			t.Fatal(err)
		}
		v := restored(t, s, in)
		mustBeCopied(t, v)
		sales.stop()
		if v.Link != "sales" || v.Restore.Position == v.Position || v.Restore.Position == "" {
			t.Errorf("%+v, %+v", v, v.Restore)
		}
		pgtest.Exec(t, a.DSN("postgres"), `CREATE DATABASE reference`)
		holdsStateAt(t, a.DSN("reference"), a.DSN(in.Name), v, []*steady{sales})
		if rows := pgtest.Query(t, a.DSN(in.Name), `SELECT nspname FROM pg_namespace WHERE nspname ~ 'twinspan' UNION ALL SELECT tgname FROM pg_trigger WHERE tgname ~ 'twinspan'
			UNION ALL SELECT evtname FROM pg_event_trigger UNION ALL SELECT pubname FROM pg_publication`); len(rows) > 0 {
			t.Errorf("of the link there is %v", rows)
		}
		pgtest.Exec(t, a.DSN(in.Name), `INSERT INTO ledger0 VALUES (-1, 0, '')`)
		leavesNothing(t, s)
	})
	var moment *time.Time // of the primary of sales, at which "sales at T" was copied
	t.Run("a twin at its primary's moment", func(t *testing.T) {
		// The twin gets what the primary has committed at the moment after it.
		pair := &linktest.Pair{A: a, B: s}
		if _, err := s.Client.Suspend(t.Context(), "sales"); err != nil {
			t.Fatal(err)
		}
		pair.WaitPhase(t, "sales", api.Suspended)
		before := pgtest.Query(t, a.DSN("sales"), `SELECT clock_timestamp()::text`)[0][0]
		pgtest.Exec(t, a.DSN("sales"), `INSERT INTO ledger1 VALUES (1, 1, 'first')`, `UPDATE still SET note = 'at T ' || id`)
		reference := copyDatabase(t, a, api.CopyDatabase{Database: "sales", Name: "sales at T"})
		mustBeCopied(t, reference)
		moment = now(t, a)
		if _, err := s.Client.Resume(t.Context(), "sales"); err != nil {
			t.Fatal(err)
		}
		pair.WaitPhase(t, "sales", api.Replicating)
		arrived := func(query string) {
			t.Helper()
			pgtest.Await(t, linktest.Patience, "the twin has it", func() error {
				if n := pgtest.Query(t, s.DSN("sales"), query)[0][0]; n != "1" {
					return fmt.Errorf("it has not")
				}
				return nil
			})
		}
		arrived(`SELECT count(*) FROM still WHERE id = 1 AND note LIKE 'at T%'`)
		pgtest.Exec(t, a.DSN("sales"), `INSERT INTO ledger1 VALUES (2, 2, 'second')`)
		local := now(t, a)
		arrived(`SELECT count(*) FROM ledger1 WHERE id = 2`)
		for _, at := range []*time.Time{moment, local} {
			as := fmt.Sprintf("sales %t", at == moment)
			v := restored(t, s, api.RestoreDatabase{Database: "sales", Name: as, At: at})
			mustBeCopied(t, v)
			if v.CommittedAt == nil || v.CommittedAt.After(*at) || v.Restore.PrimaryLast == "" || v.Restore.LastAt == nil || v.Restore.EndOfLog != (at == local) {
				t.Errorf("at %s: %+v, %+v", at, v, v.Restore)
				continue
			}
			if at == local {
				pgtest.Equal(t, a.DSN("sales"), s.DSN(as))
				continue
			}
			pgtest.Equal(t, a.DSN("sales at T"), s.DSN(as))
			if since := pgtest.Query(t, a.DSN("postgres"), fmt.Sprintf(`SELECT '%s'::timestamptz BETWEEN '%s' AND '%s'`,
				v.CommittedAt.Format(time.RFC3339Nano), before, moment.Format(time.RFC3339Nano)))[0][0]; since != "t" && since != "true" {
				t.Errorf("committed at %s, between %s and %s", v.CommittedAt, before, moment)
			}
		}
		leavesNothing(t, s)
	})
	t.Run("of an instance that is gone", func(t *testing.T) {
		refusedRestore(t, a, api.RestoreDatabase{Database: database, Name: "x", At: now(t, a)}, "backup_off")
		export, err := s.Client.ExportBackups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := pgtest.Query(t, dsn, `SELECT * FROM ledger0 ORDER BY id`)
		// No backup knows a database that is made and dropped between two.
		for _, name := range []string{"short", "other"} {
			pgtest.Exec(t, other, `CREATE DATABASE `+name)
			pgtest.Exec(t, s.DSN(name), `CREATE TABLE t AS SELECT generate_series(1, 1500) AS id`)
			pgtest.Exec(t, other, `DROP DATABASE `+name)
		}
		pgtest.Exec(t, other, `SELECT pg_current_xact_id()`)
		s.Stop() // which brings all of the log into the repository
		in := api.RestoreDatabase{Database: database, Name: "x", At: now(t, a),
			From: &api.RestoreFrom{Repository: export.Repository, Key: "wrong"}}
		if v := restored(t, a, in); v.State != api.CopyFailed || v.Problem.Code != "backup_key_wrong" {
			t.Errorf("with another key: %+v, %+v", v, v.Problem)
		}
		in.From.Key = export.Key
		v := restored(t, a, in)
		mustBeCopied(t, v)
		if !v.Restore.EndOfLog || v.Restore.From != export.Repository {
			t.Errorf("%+v", v.Restore)
		}
		if got := pgtest.Query(t, a.DSN("x"), `SELECT * FROM ledger0 ORDER BY id`); len(want) < 50 ||
			!slices.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("%d rows of %d, or others", len(got), len(want))
		}
		in = api.RestoreDatabase{Database: "short", Name: "short back", Deleted: true, From: in.From}
		mustBeCopied(t, restored(t, a, in))
		if n := pgtest.Query(t, a.DSN("short back"), `SELECT count(*) FROM t`)[0][0]; n != "1500" {
			t.Errorf("of the dropped database %s rows are back", n)
		}
		in.Database, in.Name = "gone's", "gone back"
		mustBeCopied(t, restored(t, a, in))
		if n := pgtest.Query(t, a.DSN("gone back"), `SELECT count(*) FROM t`)[0][0]; n != "1500" {
			t.Errorf("of the dropped database that the backup has %s rows are back", n)
		}
		in.Database, in.Name = database, "never"
		if v := restored(t, a, in); v.State != api.CopyFailed || v.Problem.Code != "restore_drop_unknown" {
			t.Errorf("not dropped: %+v, %+v", v, v.Problem)
		}
		v = restored(t, a, api.RestoreDatabase{Database: "sales", Name: "sales of the gone", At: moment, From: in.From})
		mustBeCopied(t, v)
		if v.Link != "sales" || v.CommittedAt == nil {
			t.Errorf("%+v, %+v", v, v.Restore)
		}
		pgtest.Equal(t, a.DSN("sales at T"), a.DSN("sales of the gone"))
		leavesNothing(t, a)
	})
}
