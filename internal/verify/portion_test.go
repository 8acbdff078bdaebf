package verify

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// bySpans compares everything in spans of so many rows, looks again at what differs, and
// tells it. It returns how many spans each table had.
func bySpans(t *testing.T, a, b string, rows int64) (told []string, spans map[string]int) {
	t.Helper()
	c := Comparison{Stored: true, Most: 100, Workers: 1}
	here, there := snapshot(t, a), snapshot(t, b)
	x, err := here.Contents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	y, err := there.Contents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	portions, skipped, err := c.Portions(x, y)
	if err != nil {
		t.Fatal(err)
	}
	spans = map[string]int{}
	var found Findings
	look := func(p Portion) {
		finding, why, err := c.Portion(t.Context(), here, there, p)
		if err != nil || why != "" {
			t.Fatalf("%s: %v %s", p.Table, err, why)
		}
		if finding != nil {
			found.Tables = append(found.Tables, *finding)
		}
		spans[p.Table.String()]++
	}
	for _, p := range portions {
		if !p.Spanned() {
			look(p)
			continue
		}
		for after, end := []string(nil), false; !end; {
			upto, err := there.Bound(t.Context(), p.Subject, after, rows)
			if err != nil {
				t.Fatal(err)
			}
			p.Span, p.Rows = &Span{After: after, Upto: upto}, rows
			look(p)
			after, end = upto, upto == nil
		}
	}
	if err := c.Confirm(t.Context(), snapshot(t, a), snapshot(t, b), &found); err != nil {
		t.Fatal(err)
	}
	for _, f := range found.Tables {
		for _, d := range f.Rows {
			told = append(told, fmt.Sprint(f.Table, " ", d.Key, " ", d.State))
		}
	}
	for _, s := range skipped {
		told = append(told, "left out "+s.Name)
	}
	slices.Sort(told)
	return slices.Compact(told), spans
}

// spanned are keys of the types by which spans are read, and one that is not.
var spanned = []string{
	`CREATE TABLE numbers (id int PRIMARY KEY, v text)`, `INSERT INTO numbers SELECT i * 7 % 1009, 'v' || i FROM generate_series(1, 1000) i`,
	`CREATE TABLE texts (name varchar(40), at timestamptz(3), n numeric(10,2), u uuid, c char(8), PRIMARY KEY (name, at, n, u, c))`,
	`INSERT INTO texts SELECT 'Ä-''' || i % 30, '2020-01-01'::timestamptz + i * interval '1 h', i / 3.0, md5(i::text)::uuid, 'c' || i % 3 FROM generate_series(1, 500) i`,
	`CREATE DOMAIN code AS text`, `CREATE TABLE domains (c code PRIMARY KEY)`, `INSERT INTO domains SELECT 'c' || i FROM generate_series(1, 50) i`,
	`CREATE MATERIALIZED VIEW held AS SELECT id % 5 AS five, count(*) FROM numbers GROUP BY 1`,
	`CREATE MATERIALIZED VIEW unheld AS SELECT 1 AS one WITH NO DATA`,
	`SELECT lo_from_bytea(70000 + i, 'x') FROM generate_series(1, 30) i`,
}

func TestSpansCoverEverythingOnce(t *testing.T) {
	a, b := two(t, spanned...)
	told, spans := bySpans(t, a, b, 100)
	if !slices.Equal(told, []string{"left out public.unheld"}) {
		t.Errorf("of equal databases told is %q", told)
	}
	for table, want := range map[string]int{"public.numbers": 10, "public.texts": 5, "public.domains": 1, "public.held": 1, "pg_catalog.pg_largeobject": 1} {
		if spans[table] < want || spans[table] > want+1 {
			t.Errorf("%s was read in %d spans, want %d", table, spans[table], want)
		}
	}
	pgtest.Exec(t, b, `UPDATE numbers SET v = v || '!' WHERE id IN (7, 1008)`, `INSERT INTO numbers VALUES (-1), (5000)`, `DELETE FROM numbers WHERE id = 500`,
		`DELETE FROM texts WHERE u = md5('250')::uuid`, `DELETE FROM domains WHERE c = 'c7'`, `SELECT lo_put(70007, 0, 'y')`, `REFRESH MATERIALIZED VIEW held`)
	told, _ = bySpans(t, a, b, 100)
	var texts []string
	told = slices.DeleteFunc(told, func(s string) bool {
		if s[:len("public.texts")] == "public.texts" {
			texts = append(texts, s)
		}
		return len(s) > 11 && s[:11] == "public.held" || s[:len("public.texts")] == "public.texts"
	})
	want := []string{"left out public.unheld", "pg_catalog.pg_largeobject [70007] differs", "public.domains [c7] missing", "public.numbers [-1] extra", "public.numbers [1008] differs",
		"public.numbers [5000] extra", "public.numbers [500] missing", "public.numbers [7] differs"}
	if !slices.Equal(told, want) || len(texts) != 1 {
		t.Errorf("told %q and %q\nwant %q", told, texts, want)
	}
}

// Servers that sort differently put rows into different spans: they are no differences,
// and those that are are found.
func TestSpansOfServersThatSortDifferently(t *testing.T) {
	table := `CREATE TABLE t (k text COLLATE %q PRIMARY KEY, v int)`
	fill := `INSERT INTO t SELECT CASE i %% 2 WHEN 0 THEN 'a' ELSE 'B' END || i, i FROM generate_series(1, 400) i WHERE i <> %d`
	server := pgtest.Shared(t)
	a, b := server.DSN(server.Database(t)), server.DSN(server.Database(t))
	pgtest.Exec(t, a, fmt.Sprintf(table, "C"), fmt.Sprintf(fill, 11))
	pgtest.Exec(t, b, `CREATE COLLATION other (provider = icu, locale = 'en')`, fmt.Sprintf(table, "other"), fmt.Sprintf(fill, 22))
	told, spans := bySpans(t, a, b, 50)
	if want := []string{"public.t [B11] extra", "public.t [a22] missing"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if spans["public.t"] < 8 {
		t.Errorf("it was read in %d spans", spans["public.t"])
	}
}
