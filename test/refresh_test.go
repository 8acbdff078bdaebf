package test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// The primary fills a materialized view with what it saw when the command began, the
// twin with everything that committed before the command did: later rows, never
// earlier ones, and the same where nobody wrote meanwhile.
func TestRefreshAtItsPlace(t *testing.T) {
	t.Parallel()
	p, a, b := drifts(t, "refresh", `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`,
		`CREATE FUNCTION turnstile() RETURNS void LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.pg_advisory_xact_lock_shared(5022)'`,
		`CREATE MATERIALIZED VIEW seen AS SELECT id FROM t, (SELECT turnstile() OFFSET 0) x`, `CREATE UNIQUE INDEX ON seen (id)`)
	next := 10
	for _, how := range []string{"", "CONCURRENTLY"} {
		guard, filler := pgtest.Conn(t, a), pgtest.Conn(t, a)
		if _, err := guard.Exec(t.Context(), `SELECT pg_advisory_lock(5022)`); err != nil {
			t.Fatal(err)
		}
		if _, err := filler.Exec(t.Context(), fmt.Sprintf(`BEGIN; INSERT INTO t VALUES (%d)`, next)); err != nil {
			t.Fatal(err)
		}
		filled := make(chan error, 1)
		go func() {
			_, err := filler.Exec(context.Background(), `REFRESH MATERIALIZED VIEW `+how+` seen`)
			filled <- err
		}()
		pgtest.Eventually(t, linktest.Patience, func() error {
			if n := pgtest.Query(t, a, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`)[0][0]; n != "1" {
				return fmt.Errorf("%s wait at the turnstile", n)
			}
			return nil
		})
		pgtest.Exec(t, a, fmt.Sprintf(`INSERT INTO t VALUES (%d)`, next+1))
		if _, err := guard.Exec(t.Context(), `SELECT pg_advisory_unlock(5022)`); err != nil {
			t.Fatal(err)
		}
		if err := <-filled; err != nil {
			t.Fatal(err)
		}
		if _, err := filler.Exec(t.Context(), fmt.Sprintf(`INSERT INTO t VALUES (%d); COMMIT`, next+2)); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, a, fmt.Sprintf(`INSERT INTO t VALUES (%d)`, next+3))
		arrived(t, p, "refresh", "refresh")
		list := func(dsn string) (ids []string) {
			for _, row := range pgtest.Query(t, dsn, `SELECT id FROM seen WHERE id >= $1::text::int ORDER BY id`, fmt.Sprint(next)) {
				ids = append(ids, row[0])
			}
			return ids
		}
		// The refreshing transaction's own row before it is in both; the one that committed
		// meanwhile is in the twin's alone; those after it are in neither.
		if got, want := list(a), []string{fmt.Sprint(next)}; !slices.Equal(got, want) {
			t.Errorf("REFRESH %s: the primary's view has %v, want %v", how, got, want)
		}
		if got, want := list(b), []string{fmt.Sprint(next), fmt.Sprint(next + 1)}; !slices.Equal(got, want) {
			t.Errorf("REFRESH %s: the twin's view has %v, want %v", how, got, want)
		}
		pgtest.Exec(t, a, `REFRESH MATERIALIZED VIEW `+how+` seen`)
		arrived(t, p, "refresh", "refresh")
		if mine, theirs := list(a), list(b); !slices.Equal(mine, theirs) || len(mine) != 4 {
			t.Errorf("REFRESH %s while nobody writes: %v and %v", how, mine, theirs)
		}
		next += 10
	}
}
