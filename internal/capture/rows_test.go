package capture_test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"maps"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/rowtext"
)

// Every row is said once, whether its table is read block by block or, where values are long,
// row by row; also where blocks are empty, and columns have the names of the reader's own.
func TestRowsComeInPortions(t *testing.T) {
	dsn, s, next := listening(t)
	conn := pgtest.Conn(t, dsn)
	if err := s.NoteFormat(testContext(t), conn, capture.Format); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"short": `'v' || i`, "long": `CASE i % 100 WHEN 0 THEN (SELECT string_agg(md5(i || ' ' || n), '') FROM generate_series(1, 200) n) ELSE 'v' || i END`} {
		t.Run(name, func(t *testing.T) {
			must(t, conn, fmt.Sprintf(`CREATE TABLE %s (block int PRIMARY KEY, rows int, line int, part text, o text)`, name))
			must(t, conn, fmt.Sprintf(`INSERT INTO %s SELECT i, i, i, %s, 'o' FROM generate_series(1, 3000) i`, name, value))
			must(t, conn, fmt.Sprintf(`DELETE FROM %s WHERE block BETWEEN 1000 AND 2000`, name))
			next()
			// A transaction of its own reads what it wrote itself.
			must(t, conn, fmt.Sprintf(`BEGIN; UPDATE %[1]s SET o = 'later' WHERE block > 2900; ALTER TABLE %[1]s ADD at timestamptz DEFAULT clock_timestamp(); COMMIT`, name))
			want := map[string]string{}
			for _, r := range pgtest.Query(t, dsn, fmt.Sprintf(`SELECT block, md5(concat_ws(' ', block, rows, line, part, o)) FROM %s`, name)) {
				want[r[0]] = r[1]
			}
			got := map[string]string{}
			portions := 0
			for _, x := range next() {
				if x.kind != "rows" {
					continue
				}
				portions++
				var fields [][]byte
				for rest := []byte(x.raw(t, "rows")); len(rest) > 0; {
					var ok bool
					if fields, rest, ok = rowtext.Next(fields[:0], rest); !ok || len(fields) != 6 {
						t.Fatalf("a row of %d fields that cannot be read", len(fields))
					}
					if _, twice := got[string(fields[0])]; twice {
						t.Errorf("row %s comes twice", fields[0])
					}
					got[string(fields[0])] = fmt.Sprintf("%x", md5.Sum(bytes.Join(fields[:5], []byte(" "))))
				}
			}
			if portions < 5 || len(want) != 1999 || !maps.Equal(got, want) {
				t.Errorf("%d rows in %d portions, want %d", len(got), portions, len(want))
			}
		})
	}
}

// A command is told by the names that it was given with, and rows are read by the name of their table. The owner of the
// schema, who may be another than the table's, puts nothing else there before it is committed; but rights may be given.
func TestSchemasKeepTheirNamesUntilTheCommit(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	conn, other := pgtest.Conn(t, dsn), pgtest.Conn(t, dsn)
	l := &catalog.Link{ID: s.Link, Agent: idOf(1), PeerAgent: idOf(2), Name: "sales", Peer: "berlin", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async"}
	if err := catalog.Insert(testContext(t), conn, l); err != nil {
		t.Fatal(err)
	}
	prepare(t, s)
	t.Cleanup(func() { remove(t, s, true) })
	if err := s.NoteFormat(testContext(t), conn, capture.Format); err != nil {
		t.Fatal(err)
	}
	must(t, other, `SET lock_timeout = '200ms'`)
	for i, sql := range []string{`ALTER TABLE theirs.t ADD COLUMN r float DEFAULT random()`, `ALTER TABLE theirs.t ADD COLUMN i int`, `CREATE INDEX ON theirs.t (id)`, `DROP TABLE theirs.t`, `COMMENT ON TABLE theirs.t IS 'x'`} {
		must(t, conn, `CREATE SCHEMA theirs; CREATE TABLE theirs.t (id int PRIMARY KEY); INSERT INTO theirs.t VALUES (1)`)
		must(t, conn, `BEGIN; `+sql)
		must(t, other, `GRANT USAGE ON SCHEMA theirs TO PUBLIC`)
		rename := fmt.Sprintf(`ALTER SCHEMA theirs RENAME TO gone%d`, i)
		if _, err := other.Exec(testContext(t), rename); pg.SQLState(err) != "55P03" {
			t.Errorf("%s: the schema is renamed: %v", sql, err)
		}
		must(t, conn, `COMMIT`)
		if _, err := other.Exec(testContext(t), rename); err != nil {
			t.Errorf("%s, committed: %v", sql, err)
		}
	}
}
