BEGIN;
DROP PROCEDURE metrics.roll_up(timestamptz);
CREATE TABLE metrics.sample_daily AS SELECT series_id, date_trunc('day', hour)::date AS day, min(min), max(max), sum(sum), sum(n)::int AS n FROM metrics.sample_hourly GROUP BY 1, 2;
ALTER TABLE metrics.sample_daily ALTER COLUMN series_id SET NOT NULL, ALTER COLUMN day SET NOT NULL, ADD CONSTRAINT sample_daily_pk PRIMARY KEY (series_id, day) INCLUDE (n);
DROP TABLE metrics.sample_hourly CASCADE;
COMMIT;
