BEGIN;
CREATE TABLE warehouse.staging (line int, raw text);
INSERT INTO warehouse.staging SELECT i, 'raw ' || i FROM generate_series(1, 100) i;
TRUNCATE warehouse.staging;
INSERT INTO warehouse.staging SELECT i, 'raw again' FROM generate_series(1, 10) i;
COMMIT;
TRUNCATE audit.login_attempt;
