ALTER TYPE geo ADD ATTRIBUTE altitude real;
ALTER TYPE geo RENAME ATTRIBUTE lat TO latitude;
ALTER TYPE geo RENAME TO position_on_earth;
UPDATE rooms SET place = ROW(1.5, 2.5, 3.5)::position_on_earth WHERE id = 1;
COMMENT ON COLUMN position_on_earth.altitude IS 'metres';
