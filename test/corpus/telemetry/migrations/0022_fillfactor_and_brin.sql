ALTER TABLE metrics.sample_globex_2024_02 RESET (fillfactor);
CREATE INDEX sample_value_bloom ON metrics.sample_others USING brin (value float8_bloom_ops, at timestamptz_minmax_multi_ops);
ALTER INDEX metrics.sample_value_bloom RENAME TO sample_others_value;
ALTER TABLE queue.job SET (fillfactor = 60, toast.autovacuum_enabled = true), ALTER COLUMN payload SET COMPRESSION pglz;
