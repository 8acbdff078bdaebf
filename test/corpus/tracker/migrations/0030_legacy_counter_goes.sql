BEGIN;
CREATE TABLE counters AS SELECT name, sum(value)::bigint AS value FROM legacy_counter GROUP BY name WITH DATA;
ALTER TABLE counters ADD CONSTRAINT counters_pkey PRIMARY KEY (name), ALTER COLUMN value SET DEFAULT 0;
UPDATE counters SET value = value + 1;
DROP TABLE legacy_counter CASCADE;
COMMIT;
