package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// makeLures makes what an ordinary user can leave for a superuser who reads all: the planner calls
// functions that are said to be immutable where they have constants for arguments. Each fails once a
// superuser runs it. A materialized view and a generated column are there to be read, too.
func makeLures(t *testing.T, s *linktest.Side) {
	t.Helper()
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE angler`, `CREATE DATABASE lures OWNER angler`)
	pgtest.Exec(t, s.DSN("lures"), `SET ROLE angler`,
		`CREATE SCHEMA a`,
		`CREATE FUNCTION a.own() RETURNS int LANGUAGE plpgsql AS $$
	BEGIN
		IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
			RAISE EXCEPTION 'a lure was taken';
		END IF;
		RETURN 0;
	END $$`,
		`CREATE FUNCTION a.lure(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN a.own() + $1; END'`,
		`CREATE TABLE a.index (x int)`, `INSERT INTO a.index SELECT generate_series(1, 1000)`,
		`CREATE INDEX ON a.index ((a.lure(0) + x))`,
		`CREATE TABLE a.partial (x int)`, `CREATE INDEX ON a.partial (x) WHERE a.lure(0) < x`,
		`CREATE TABLE a.statistics (x int, y int)`, `CREATE STATISTICS a.s ON (a.lure(0) + x), y FROM a.statistics`,
		`CREATE TABLE a.checked (x int CHECK (a.lure(0) < x))`, `ALTER DATABASE lures SET constraint_exclusion = 'on'`,
		`CREATE TABLE a.generated (x int, y int GENERATED ALWAYS AS (x + a.lure(0)) STORED)`,
		`INSERT INTO a.generated VALUES (1)`,
		`CREATE MATERIALIZED VIEW a.view AS SELECT x + a.lure(0) AS x FROM a.index`,
		`CREATE INDEX ON a.view ((a.lure(0) + x))`,
		`CREATE MATERIALIZED VIEW a.many AS SELECT generate_series(1, 300000) AS x`)
}

// makeUnreadable makes what fails for who reads in UTF-8, or by the databases that are there always.
func makeUnreadable(t *testing.T, s *linktest.Side) {
	t.Helper()
	pgtest.Exec(t, s.DSN("postgres"),
		`CREATE DATABASE windows TEMPLATE template0 ENCODING 'WIN1252' LOCALE 'C'`,
		`CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'`,
		`ALTER DATABASE template1 ALLOW_CONNECTIONS false`)
	for _, name := range []string{"windows", "bytes"} {
		// 0x81 is nothing in WIN1252, and no beginning of a character in UTF-8.
		pgtest.Exec(t, s.DSN(name), `CREATE TABLE t AS SELECT chr(129) AS v`)
	}
	pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE windows SET role = 'pg_monitor'`) // which may not read the table
}

// testOfHoles tests the newest backup while a segment of the log behind it is away.
func testOfHoles(t *testing.T, s *linktest.Side, repository string) {
	var last []string
	for range 3 {
		pgtest.Exec(t, s.DSN("postgres"), `INSERT INTO t VALUES (0, 'x')`)
		last = append(last, pgtest.Query(t, s.DSN("postgres"), `SELECT pg_walfile_name(pg_switch_wal())`)[0][0])
	}
	// The agent has seen a commit of its own behind them.
	since := pgtest.Query(t, s.DSN("postgres"), `SELECT clock_timestamp() AT TIME ZONE 'UTC'`)[0][0]
	awaitBackups(t, s, "the log is in the repository", func(b api.Backups) error {
		pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_current_xact_id()`, `SELECT pg_switch_wal()`)
		if b.Until == nil || b.Until.UTC().Format("2006-01-02 15:04:05.000000") < since {
			return fmt.Errorf("until %v", b.Until)
		}
		return nil
	})
	found, err := filepath.Glob(filepath.Join(repository, "archive/main/*/*/"+last[1]+"-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	away := filepath.Join(s.Dir.Path(), "away")
	if err := os.Rename(found[0], away); err != nil {
		t.Fatal(err)
	}
	task, err := s.Client.TestBackups(t.Context())
	task = awaitTask(t, s, task, err)
	e := task.Error
	if e == nil || e.Code != "backup_test_failed" || !strings.Contains(e.Text, last[1]) ||
		!strings.Contains(e.Hint, "full backup") {
		t.Errorf("%s is away: %+v, %+v, %+v", last[1], task, task.Tested, e)
	}
	if err := os.Rename(away, found[0]); err != nil {
		t.Fatal(err)
	}
	task, err = s.Client.TestBackups(t.Context())
	if task = awaitTask(t, s, task, err); task.Tested == nil {
		t.Errorf("%+v, %+v", task, task.Error)
	}
	awaitCode(t, s, "backup_test_failed", false)
}
