package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestMergeCountsWhatOneSideHasAlone(t *testing.T) {
	for _, c := range []struct {
		a, b            string
		rows, different int64
	}{
		{"", "", 0, 0},
		{"1\n2\n3\n", "1\n2\n3\n", 3, 0},
		{"1\n2\n3\n", "1\n3\n", 2, 1},
		{"1\n", "1\n2\n3\n", 1, 2},
		{"1\n1\n2\n", "1\n2\n2\n", 2, 2},
		{"(1,a)\n(2,b)\n", "(1,a)\n(2,c)\n", 1, 2},
		{"", "x\n", 0, 1},
	} {
		var got compared
		if err := merge(strings.NewReader(c.a), strings.NewReader(c.b), &got); err != nil {
			t.Fatal(err)
		}
		if got.rows != c.rows || got.different != c.different {
			t.Errorf("%q, %q: %+v", c.a, c.b, got)
		}
	}
}

func TestComparisonSeesOneChangedRow(t *testing.T) {
	server := pgtest.Shared(t)
	one, two := server.DSN(server.Database(t)), server.DSN(server.Database(t))
	today := pgtest.Query(t, one, `SELECT current_date`)[0][0] // for both, also about midnight
	for _, dsn := range []string{one, two} {
		if err := execute(t.Context(), dsn, shopSchema); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, dsn, `INSERT INTO products (sku, title, price, stock, attributes) SELECT i, 't', i, i, '{"a": [1, null]}' FROM generate_series(1, 5000) i`,
			`INSERT INTO customers (name, email, address, since) VALUES ('ä', 'e', '{}', '2020-01-01')`,
			`INSERT INTO orders (customer_id, ordered_at, details) VALUES (1, '2024-01-01', '{}')`,
			`INSERT INTO order_lines (order_id, ordered_on, line, product_id, quantity, price) SELECT 1, '`+today+`', i, i, 1, 1 FROM generate_series(1, 10) i`,
			`INSERT INTO page_views (at, path) SELECT '2024-01-01', 'x' FROM generate_series(1, 3)`)
	}
	result, err := compare(t.Context(), one, two)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range result {
		names = append(names, c.name)
		if c.different != 0 {
			t.Errorf("%+v", c)
		}
	}
	if got := strings.Join(names, " "); got != "public.customers public.greetings public.order_lines public.orders public.page_views public.products" {
		t.Error(got)
	}
	pgtest.Exec(t, two, `UPDATE products SET attributes = '{"a": [1, 0]}' WHERE id = 4711`, `DELETE FROM page_views WHERE ctid = '(0,2)'`)
	if result, err = compare(t.Context(), one, two); err != nil {
		t.Fatal(err)
	}
	for _, c := range result {
		want := map[string]int64{"public.products": 2, "public.page_views": 1}[c.name]
		if c.different != want {
			t.Errorf("%+v, want %d different", c, want)
		}
	}
	pgtest.Exec(t, two, `DROP TABLE greetings`)
	if _, err := compare(t.Context(), one, two); problem.CodeOf(err) != "demo_differs" {
		t.Errorf("%v", err)
	}
}

func TestWorkloadChangesEveryTable(t *testing.T) {
	server := pgtest.Shared(t)
	dsn := server.DSN(server.Database(t))
	if err := execute(t.Context(), dsn, shopSchema); err != nil {
		t.Fatal(err)
	}
	for _, f := range filling() {
		pgtest.Exec(t, dsn, f.sql)
	}
	today := pgtest.Query(t, dsn, `SELECT current_date`)[0][0] // it may be another day in the end
	w := newWorkload(dsn)
	ctx, cancel := withCancel(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	pgtest.Eventually(t, patience, func() error {
		if w.done() < 300 {
			return problem.New(problem.Transient, "early", "%d transactions", w.done())
		}
		return nil
	})
	cancel()
	<-ended
	if w.errors() != 0 {
		t.Errorf("%d of %d transactions failed", w.errors(), w.done())
	}
	for _, sql := range []string{
		`SELECT count(*) > 0 FROM orders WHERE state = 'new' AND total > 0`,
		`SELECT count(*) > 0 FROM orders WHERE state = 'paid' AND details ? 'paid'`,
		`SELECT count(*) > 0 FROM orders WHERE state = 'returned' AND total = 0`,
		`SELECT count(*) > 0 FROM order_lines WHERE ordered_on >= '` + today + `'`,
		`SELECT count(*) > 0 FROM page_views WHERE agent = 'Browser/8'`,
		`SELECT pg_database_size(current_database()) BETWEEN 100e6 AND 350e6`,
	} {
		if got := pgtest.Query(t, dsn, sql); got[0][0] != "t" {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func TestOnlyADemonstrationsDirectoryIsCleared(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "a"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPlace(foreign); problem.CodeOf(err) != "dir_not_empty" {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(filepath.Join(foreign, "a")); err != nil || string(text) != "precious" {
		t.Errorf("%s, %v", text, err)
	}
	base := pgtest.Dir(t)
	own := filepath.Join(base, "new one")
	first, err := openPlace(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(own, "a", "instance"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openPlace(own); problem.CodeOf(err) != "already_running" {
		t.Errorf("%v", err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second, err := openPlace(own)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(own, "a")); !os.IsNotExist(err) {
		t.Errorf("what the first left: %v", err)
	}
	if err := second.close(); err != nil {
		t.Fatal(err)
	}
	temporary, err := openPlace("")
	if err != nil {
		t.Fatal(err)
	}
	if err := temporary.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(temporary.dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory: %v", err)
	}
}

func TestPlainLinesAreFew(t *testing.T) {
	var out bytes.Buffer
	s := newStage(Request{Out: &out, Plain: true})
	for range 20 {
		s.show("seeding", []string{"x"}, "seeding")
	}
	s.show("replicating", []string{"x"}, "replicating")
	if lines := strings.Count(out.String(), "\n"); lines != 2 {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
}
