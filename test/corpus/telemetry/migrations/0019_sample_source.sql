-- as: string
ALTER TABLE metrics.sample ADD COLUMN source text;
ALTER TABLE metrics.sample ALTER COLUMN source SET DEFAULT 'unknown';
COMMENT ON COLUMN metrics.sample.source IS 'agent; or "load"';
