DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname = 'accounting' AND tablename LIKE 'rate\_%' ORDER BY 2 LOOP
        EXECUTE format('ALTER TABLE %I.%I OWNER TO shop_owner', t.schemaname, t.tablename);
        EXECUTE format('GRANT SELECT ON %I.%I TO shop_readonly, "Shop Support"', t.schemaname, t.tablename);
    END LOOP;
END
$$;
