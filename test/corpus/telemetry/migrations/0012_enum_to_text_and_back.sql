BEGIN;
ALTER TABLE metrics.series ALTER COLUMN kind DROP DEFAULT;
ALTER TABLE metrics.series ALTER COLUMN kind TYPE text;
UPDATE metrics.series SET kind = 'counter' WHERE id % 2 = 0;
CREATE TYPE metrics.kind_v2 AS ENUM ('counter', 'gauge', 'histogram', 'summary');
ALTER TABLE metrics.series ALTER COLUMN kind TYPE metrics.kind_v2 USING kind::metrics.kind_v2;
ALTER TABLE metrics.series ALTER COLUMN kind SET DEFAULT 'summary';
COMMIT;
