CREATE SCHEMA cold AUTHORIZATION telemetry_admin CREATE TABLE moved (name text PRIMARY KEY, at timestamptz DEFAULT now()) CREATE VIEW moved_names AS SELECT name FROM moved GRANT SELECT ON moved TO telemetry_reader;
BEGIN;
ALTER TABLE metrics.sample_acme DETACH PARTITION metrics.sample_acme_2024_01;
ALTER TABLE metrics.sample_acme_2024_01 SET SCHEMA cold;
ALTER TABLE cold.sample_acme_2024_01 SET UNLOGGED;
INSERT INTO cold.moved VALUES ('sample_acme_2024_01');
COMMIT;
