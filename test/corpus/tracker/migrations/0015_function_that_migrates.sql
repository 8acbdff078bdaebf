CREATE OR REPLACE FUNCTION add_timestamps(t regclass) RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    EXECUTE format('ALTER TABLE %s ADD COLUMN inserted_at timestamptz NOT NULL DEFAULT clock_timestamp()', t);
    EXECUTE format('ALTER TABLE %s ADD COLUMN changed_at timestamptz; COMMENT ON COLUMN %s.changed_at IS %L', t, t, 'set by hand; mostly');
    EXECUTE format('CREATE INDEX ON %s (inserted_at)', t);
END
$fn$;
SELECT add_timestamps('labels'), add_timestamps('boards');
SELECT add_timestamps(c.oid) FROM pg_class c WHERE relname IN ('rooms', 'sprints') AND relkind = 'r' ORDER BY relname;
DROP FUNCTION add_timestamps;
