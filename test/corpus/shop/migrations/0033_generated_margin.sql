ALTER TABLE catalog.product ADD COLUMN cost numeric(12,2), ADD COLUMN margin numeric GENERATED ALWAYS AS (net_price - coalesce(cost, 0)) STORED;
UPDATE catalog.product SET cost = round(net_price * 0.6, 2) WHERE id % 2 = 0;
ALTER TABLE catalog.product ALTER COLUMN gross_price DROP EXPRESSION;
