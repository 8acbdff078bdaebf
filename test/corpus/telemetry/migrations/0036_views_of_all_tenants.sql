DO $$
DECLARE
    q text;
BEGIN
    SELECT string_agg(format('SELECT %L AS tenant, id, name FROM %I.devices', nspname, nspname), ' UNION ALL ' ORDER BY nspname) INTO q FROM pg_namespace WHERE nspname LIKE 'tenant\_%';
    EXECUTE 'CREATE OR REPLACE VIEW platform.all_devices AS ' || q;
    EXECUTE 'CREATE MATERIALIZED VIEW platform.device_count AS SELECT tenant, count(*) FROM platform.all_devices WHERE name LIKE ''dev %'' GROUP BY tenant';
END
$$;
REFRESH MATERIALIZED VIEW platform.device_count;
ALTER MATERIALIZED VIEW platform.device_count SET SCHEMA metrics;
GRANT SELECT ON platform.all_devices, metrics.device_count TO telemetry_reader;
