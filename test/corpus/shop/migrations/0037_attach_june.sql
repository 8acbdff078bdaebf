BEGIN;
CREATE TABLE sales.orders_2024_06 (LIKE sales.orders INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE sales.orders_2024_06 ADD CONSTRAINT june CHECK (placed_on >= '2024-06-01' AND placed_on < '2024-07-01');
INSERT INTO sales.orders_2024_06 (placed_on, customer_id) SELECT '2024-06-01'::date + i, i + 1 FROM generate_series(0, 20) i;
ALTER TABLE sales.orders ATTACH PARTITION sales.orders_2024_06 FOR VALUES FROM ('2024-06-01') TO ('2024-07-01');
ALTER TABLE sales.orders_2024_06 DROP CONSTRAINT june;
COMMIT;
