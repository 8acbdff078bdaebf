package demo

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

//go:embed shop.sql
var shopSchema string

// The size of the sample database: about 200 MB with its indexes.
const (
	customers = 40_000
	products  = 2_000
	orders    = 240_000
	views     = 20_000
)

// filling are the statements that fill the tables, each with what it makes.
func filling() []struct{ what, sql string } {
	return []struct{ what, sql string }{
		{"products", fmt.Sprintf(`INSERT INTO products (sku, title, price, stock, attributes)
			SELECT 'SKU-' || i, 'Product ' || i, (random() * 100 + 1)::numeric(10,2), 1000,
				jsonb_build_object('colour', (ARRAY['red','green','blue','black'])[i %% 4 + 1], 'weight', i %% 50)
			FROM generate_series(1, %d) i`, products)},
		{"customers", fmt.Sprintf(`INSERT INTO customers (name, email, address, since)
			SELECT 'Customer ' || i, 'customer' || i || '@example.com',
				jsonb_build_object('street', 'Street ' || i %% 977, 'city', 'City ' || i %% 131, 'postcode', lpad((i * 7919 %% 100000)::text, 5, '0')),
				current_date - i %% 1500
			FROM generate_series(1, %d) i`, customers)},
		{"orders", fmt.Sprintf(`INSERT INTO orders (customer_id, state, ordered_at, details)
			SELECT i %% %d + 1, (ARRAY['paid','sent','sent','returned']::order_state[])[i %% 4 + 1],
				date_trunc('month', now()) - make_interval(secs => random() * 86400 * 150),
				jsonb_build_object('channel', (ARRAY['web','shop','phone'])[i %% 3 + 1], 'note', repeat(md5(i::text), 3))
			FROM generate_series(1, %d) i`, customers, orders)},
		{"order lines", fmt.Sprintf(`INSERT INTO order_lines (order_id, ordered_on, line, product_id, quantity, price)
			SELECT o.id, o.ordered_at::date, l, (o.id * 31 + l * 17) %% %d + 1, l, (o.id * l %% 9000) / 100.0 + 1
			FROM orders o, generate_series(1, 4) l`, products)},
		{"page views", fmt.Sprintf(`INSERT INTO page_views (at, customer_id, path, agent)
			SELECT now() - make_interval(secs => i), i %% %d + 1, '/product/' || i %% %d, 'Browser/' || i %% 7
			FROM generate_series(1, %d) i`, customers, products, views)},
		{"statistics", "ANALYZE"},
	}
}

// fill makes the sample database on a.
func (d *demo) fill(ctx context.Context) error {
	began := time.Now()
	d.stage.say("Filling the sample database %s on a", database)
	if err := execute(ctx, d.a.dsn("postgres"), "CREATE DATABASE "+database); err != nil {
		return err
	}
	if err := execute(ctx, d.a.dsn(database), shopSchema); err != nil {
		return err
	}
	conn, err := d.a.connect(ctx, database)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "connection_lost", "connect to a")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The rows are made to fit: checking every reference would take most of the time.
	if _, err := conn.Exec(ctx, "SET session_replication_role = replica"); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "prepare the filling")
	}
	steps := filling()
	for i, f := range steps {
		d.stage.filling(f.what, i+1, len(steps))
		if _, err := conn.Exec(ctx, f.sql); err != nil {
			return problem.Wrap(err, problem.Internal, "demo_sql", "fill %s", f.what)
		}
	}
	var bytes int64
	if err := conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "measure the database")
	}
	d.stage.settle()
	d.stage.say("%s is filled: %s in %s", database, terminal.Size(bytes), terminal.Duration(time.Since(began).Seconds()))
	return nil
}

func execute(ctx context.Context, dsn, sql string) error {
	conn, err := connect(ctx, dsn)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "connection_lost", "connect to the instance")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The simple protocol takes several statements at once.
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "make the sample database")
	}
	return nil
}
