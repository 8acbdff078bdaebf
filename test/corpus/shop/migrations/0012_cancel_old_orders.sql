UPDATE sales.orders SET status = 'cancelled' WHERE status = 'new' AND placed_on < '2024-01-15';
CREATE INDEX orders_cancelled_idx ON sales.orders (placed_on) WHERE status = 'cancelled';
