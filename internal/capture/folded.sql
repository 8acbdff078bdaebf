-- What a command's words for a moment came to. The server reads 'now', 'today' and their like when the command
-- runs, and keeps what it read: in defaults, conditions, views. A twin that ran the same words would keep
-- another moment. These statements, for behind the command, give what the primary's catalogs have. In
-- materialized views, which nothing can alter, and in the expressions of generated columns the twin's stays.
CREATE OR REPLACE FUNCTION twinspan.folded(command text) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'iso_8601' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' AS
$$
BEGIN
    IF command IS NULL OR command !~* '''\s*(now|today|tomorrow|yesterday)\s*''' THEN
        RETURN '{}';
    END IF;
    RETURN (WITH RECURSIVE made AS (
        SELECT DISTINCT x.classid, x.objid FROM pg_event_trigger_ddl_commands() x WHERE coalesce(x.schema_name, '') !~ '^pg_temp(_\d+)?$'
    ), kin AS (
        SELECT c.oid FROM made m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
        UNION SELECT i.inhrelid FROM kin k JOIN pg_inherits i ON i.inhparent = k.oid
    ), named AS (
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name FROM kin k JOIN pg_class c ON c.oid = k.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    )
    SELECT coalesce(array_agg(s.sql ORDER BY s.place, s.sql), '{}') FROM (
        SELECT 1 AS place, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %s', n.name, a.attname, pg_get_expr(d.adbin, d.adrelid)) AS sql
          FROM named n JOIN pg_attrdef d ON d.adrelid = n.oid
          JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND NOT a.attisdropped AND coalesce(to_jsonb(a)->>'attgenerated', '') = '' AND a.attidentity = ''
        UNION ALL
        -- Children get theirs from their parents.
        SELECT 2, format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', n.name, c.conname, c.conname, pg_get_constraintdef(c.oid))
          FROM named n JOIN pg_constraint c ON c.conrelid = n.oid AND c.contype = 'c' AND c.coninhcount = 0
        UNION ALL
        SELECT 3, format('ALTER DOMAIN %s SET DEFAULT %s', format_type(t.oid, NULL), pg_get_expr(t.typdefaultbin, 0))
          FROM made m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid AND t.typtype = 'd' AND t.typdefaultbin IS NOT NULL
        UNION ALL
        SELECT x.place, x.sql FROM made m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid AND t.typtype = 'd'
          JOIN pg_constraint c ON c.contypid = t.oid AND c.contype = 'c' CROSS JOIN LATERAL (
               VALUES (4, format('ALTER DOMAIN %s DROP CONSTRAINT %I', format_type(t.oid, NULL), c.conname)), (5, format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', format_type(t.oid, NULL), c.conname, pg_get_constraintdef(c.oid)))) x (place, sql)
        UNION ALL
        SELECT 6, format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, c.relname, ' WITH (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), ';'))
          FROM made m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind = 'v' JOIN pg_namespace n ON n.oid = c.relnamespace
        UNION ALL
        SELECT 7, format('ALTER POLICY %I ON %I.%I', p.polname, n.nspname, c.relname) || coalesce(format(' USING (%s)', pg_get_expr(p.polqual, p.polrelid)), '')
               || coalesce(format(' WITH CHECK (%s)', pg_get_expr(p.polwithcheck, p.polrelid)), '')
          FROM made m JOIN pg_policy p ON m.classid = 'pg_policy'::regclass AND p.oid = m.objid JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        UNION ALL
        SELECT x.place, x.sql FROM made m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind IN ('i', 'I') JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_index i ON i.indexrelid = c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid) CROSS JOIN LATERAL (
               VALUES (8, format('DROP INDEX %I.%I', n.nspname, c.relname)), (9, pg_get_indexdef(c.oid))) x (place, sql)
        UNION ALL
        SELECT 10, rtrim(pg_get_functiondef(m.objid), E'\n ') FROM pg_event_trigger_ddl_commands() x JOIN made m ON m.classid = x.classid AND m.objid = x.objid
         WHERE x.classid = 'pg_proc'::regclass AND x.object_type IN ('function', 'procedure')) s);
END
$$;
