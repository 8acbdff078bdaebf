ALTER TABLE metrics.last_value SET LOGGED;
ALTER TABLE metrics.last_value ADD COLUMN touched timestamptz NOT NULL DEFAULT clock_timestamp();
