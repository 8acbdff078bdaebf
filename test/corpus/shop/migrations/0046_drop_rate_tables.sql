DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['rate_gbp', 'rate_jpy', 'rate_usd'] LOOP
        EXECUTE format('DROP TABLE accounting.%I CASCADE', t);
    END LOOP;
    DROP TABLE IF EXISTS accounting.rate_chf;
END
$$;
DROP MATERIALIZED VIEW catalog.rating;
DROP SCHEMA IF EXISTS no_such_schema CASCADE;
