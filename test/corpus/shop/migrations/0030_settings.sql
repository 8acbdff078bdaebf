-- as: transaction
CREATE UNLOGGED TABLE sales.session_cache (key text PRIMARY KEY, value jsonb, expires timestamptz);
CREATE TABLE sales.shop_setting (key text PRIMARY KEY, value jsonb NOT NULL, changed_at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO sales.shop_setting (key, value) VALUES ('banner', '"hi"'), ('vat', '{"DE": 19}');
INSERT INTO sales.session_cache VALUES ('a', '{}', now());
ALTER TABLE sales.shop_setting OWNER TO shop_owner;
GRANT ALL ON sales.shop_setting, sales.session_cache TO shop_app;
