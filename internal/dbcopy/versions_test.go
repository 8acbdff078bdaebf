package dbcopy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// TestCopyToANewerVersion copies from the oldest servers to a newer one, with roles that it
// lacks.
func TestCopyToANewerVersion(t *testing.T) {
	s := pgtest.Shared(t)
	for _, major := range []int{10, 12} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			old := pgtest.Start(t, pgtest.WithMajor(major))
			owner := fmt.Sprintf(`copy "owner" %d`, major)
			pgtest.Exec(t, old.DSN("postgres"), fmt.Sprintf(`CREATE ROLE "copy ""owner"" %d"`, major))
			from := small(t, old)
			pgtest.Exec(t, from, fmt.Sprintf(`ALTER TABLE t OWNER TO "copy ""owner"" %d"`, major), `SELECT lo_from_bytea(7, '\x01')`,
				`CREATE TABLE parts (a int, b float8) PARTITION BY LIST (a)`, `CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)`, `INSERT INTO parts VALUES (1, 0.1)`)
			result, dsn := must(t, s, open(t, from), "copy of small")
			t.Cleanup(func() {
				pgtest.Exec(t, s.DSN("postgres"), `DROP DATABASE "copy of small"`, fmt.Sprintf(`DROP ROLE "copy ""owner"" %d"`, major))
			})
			pgtest.Equal(t, from, dsn)
			nothingOfOurs(t, dsn)
			if len(result.Roles) != 1 || result.Roles[0] != owner || result.Objects != 1 || !result.Origin.Exact {
				t.Errorf("the result is %+v", result)
			}
		})
	}
}

// TestCopyOfAStandby copies from a server that recovers, at the position that it has
// replayed.
func TestCopyOfAStandby(t *testing.T) {
	s := pgtest.Start(t)
	from := small(t, s)
	name := pgtest.Query(t, from, `SELECT current_database()`)[0][0]
	standby := s.Standby(t, "copied")
	pgtest.Exec(t, s.DSN(name), `INSERT INTO t VALUES (-1, 'late')`)
	pgtest.Eventually(t, time.Minute, func() error {
		if n := pgtest.Query(t, standby.DSN(name), `SELECT count(*) FROM t WHERE a = -1`)[0][0]; n != "1" {
			return fmt.Errorf("the row is not there")
		}
		return nil
	})
	pgtest.Exec(t, standby.DSN("postgres"), `SELECT pg_wal_replay_pause()`)
	pgtest.Eventually(t, time.Minute, func() error {
		if is := pgtest.Query(t, standby.DSN("postgres"), `SELECT pg_get_wal_replay_pause_state()`)[0][0]; is != "paused" {
			return fmt.Errorf("replay is %s", is)
		}
		return nil
	})
	at := pgtest.Query(t, standby.DSN("postgres"), `SELECT pg_last_wal_replay_lsn()::text`)[0][0]
	pgtest.Exec(t, s.DSN(name), `INSERT INTO t VALUES (-2, 'later')`)
	result, dsn := must(t, s, open(t, standby.DSN(name)), "copy of small")
	pgtest.Equal(t, standby.DSN(name), dsn)
	if result.Origin.Position.String() != at || !result.Origin.Exact {
		t.Errorf("the copy is at %s (exact: %t), the standby at %s", result.Origin.Position, result.Origin.Exact, at)
	}
	pgtest.Exec(t, standby.DSN("postgres"), `SELECT pg_wal_replay_resume()`)
}

// TestCopyWithoutALogicalLog says what is known of the position where no slot can be made.
func TestCopyWithoutALogicalLog(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("wal_level", "replica"), pgtest.WithSetting("autovacuum", "off"))
	from := small(t, s)
	writing := pgtest.Conn(t, from)
	if _, err := writing.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (-1, 'open')`); err != nil {
		t.Fatal(err)
	}
	result, dsn := must(t, s, open(t, from), "copy of open")
	if result.Origin.Exact {
		t.Error("the position is called exact while a transaction is open")
	}
	if rows := pgtest.Query(t, dsn, `SELECT count(*) FROM t`); rows[0][0] != "1000" {
		t.Errorf("the copy has %v rows", rows)
	}
	if _, err := writing.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, s.DSN("postgres"), `CHECKPOINT`)
	end, err := lsn.Parse(pgtest.Query(t, from, `SELECT pg_current_wal_insert_lsn()::text`)[0][0])
	if err != nil {
		t.Fatal(err)
	}
	source := open(t, from)
	for range 3 { // the server itself may have written meanwhile
		if !source.Origin().Exact {
			source = open(t, from)
		}
	}
	result, dsn = must(t, s, source, "copy of quiet")
	if !result.Origin.Exact || result.Origin.Position < end {
		t.Errorf("on a server at rest the position is %s (exact: %t), after %s", result.Origin.Position, result.Origin.Exact, end)
	}
	pgtest.Equal(t, from, dsn)
}
