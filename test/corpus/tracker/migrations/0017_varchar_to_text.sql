-- as: string
ALTER TABLE projects ALTER COLUMN name TYPE text;
ALTER TABLE labels ALTER COLUMN color TYPE varchar(20);
ALTER TABLE sessions ALTER COLUMN expires TYPE timestamptz USING expires AT TIME ZONE 'UTC';
