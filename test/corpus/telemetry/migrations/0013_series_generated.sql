ALTER TABLE metrics.series ADD COLUMN fingerprint text GENERATED ALWAYS AS (md5(tenant || '/' || name)) STORED;
CREATE INDEX series_fingerprint ON metrics.series USING hash (fingerprint);
ALTER INDEX metrics.series_labels SET (fastupdate = off);
