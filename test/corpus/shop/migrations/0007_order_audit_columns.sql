BEGIN;
ALTER TABLE sales.orders ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE sales.orders ADD COLUMN created_by name DEFAULT current_user, ADD COLUMN channel text NOT NULL DEFAULT 'web';
UPDATE sales.orders SET channel = 'phone' WHERE customer_id % 10 = 0;
COMMIT;
