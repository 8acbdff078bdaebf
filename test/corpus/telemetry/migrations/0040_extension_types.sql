CREATE EXTENSION pgcrypto SCHEMA platform;
CREATE EXTENSION cube;
ALTER TABLE metrics.series ADD COLUMN location cube;
UPDATE metrics.series SET location = cube(ARRAY[id, 2]) WHERE id % 3 = 0;
CREATE INDEX ON metrics.series USING gist (location);
ALTER TABLE platform.users ADD COLUMN secret bytea DEFAULT platform.gen_random_bytes(8);
DROP EXTENSION cube CASCADE;
