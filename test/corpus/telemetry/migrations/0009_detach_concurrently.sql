ALTER TABLE metrics.sample_acme DETACH PARTITION metrics.sample_acme_rest;
ALTER TABLE metrics.sample_acme DETACH PARTITION metrics.sample_acme_2024_07 CONCURRENTLY;
DROP TABLE metrics.sample_acme_2024_07;
ALTER TABLE metrics.sample_acme ATTACH PARTITION metrics.sample_acme_rest DEFAULT;
