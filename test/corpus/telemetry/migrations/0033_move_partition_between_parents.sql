BEGIN;
ALTER TABLE metrics.sample DETACH PARTITION metrics.sample_others;
CREATE TABLE metrics.sample_initech PARTITION OF metrics.sample FOR VALUES IN ('initech', 'hooli');
ALTER TABLE metrics.sample ATTACH PARTITION metrics.sample_others DEFAULT;
INSERT INTO metrics.sample (tenant, series_id, at, value) VALUES ('hooli', 1, '2024-05-05', 1), ('nobody', 1, '2024-05-05', 2);
COMMIT;
