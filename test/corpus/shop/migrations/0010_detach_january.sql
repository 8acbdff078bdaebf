-- as: string
ALTER TABLE sales.orders ADD COLUMN IF NOT EXISTS archived boolean;
CREATE SCHEMA IF NOT EXISTS archive AUTHORIZATION shop_owner;
