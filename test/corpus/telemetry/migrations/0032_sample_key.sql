BEGIN;
ALTER TABLE queue.lease ADD COLUMN nothing int;
ALTER TABLE queue.lease DROP COLUMN nothing;
ROLLBACK;
CREATE UNIQUE INDEX sample_daily_n ON metrics.sample_daily (n, series_id, day) NULLS NOT DISTINCT;
ALTER TABLE metrics.sample_daily REPLICA IDENTITY USING INDEX sample_daily_pk;
UPDATE metrics.sample_daily SET n = n + 1 WHERE n % 2 = 0;
