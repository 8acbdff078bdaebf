DO $$
DECLARE
    s name;
BEGIN
    FOR s IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\_%' ORDER BY nspname LOOP
        EXECUTE format('ALTER TABLE %I.devices ADD COLUMN firmware text NOT NULL DEFAULT ''1.0''', s);
        EXECUTE format('ALTER TABLE %I.devices ADD COLUMN "installedAt" timestamptz DEFAULT clock_timestamp()', s);
        EXECUTE format('UPDATE %I.devices SET firmware = ''2.0'' WHERE id %% 2 = 0', s);
    END LOOP;
END
$$;
