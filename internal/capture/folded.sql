-- What a command's words for a moment came to. The server reads 'now', 'today' and their like when the command
-- runs, and keeps what it read: in defaults, conditions, views, also as a part of a range, an array or a row. A twin
-- that ran the same words would keep another moment. These statements, for behind the command, give what the primary's
-- catalogs have. A materialized view, which nothing can alter, is written from the catalogs instead; in the expressions of
-- generated columns the twin's stays.

-- Whether a command has such a word in what it quotes. mask is the command without that.
CREATE OR REPLACE FUNCTION twinspan.says_moment(command text, mask text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    -- A command without one is most commands.
    IF command IS NULL OR command !~* '\m(now|today|tomorrow|yesterday)\M' THEN
        RETURN false;
    END IF;
    RETURN (SELECT coalesce((SELECT count(*) FROM regexp_matches(command, '\m(?:now|today|tomorrow|yesterday)\M', 'gi'))
         > (SELECT count(*) FROM regexp_matches(mask, '\m(?:now|today|tomorrow|yesterday)\M', 'gi')), false));
END
$$;

-- Whether an expression of the catalogs holds a constant of a type that reads such words, or that has a part which does.
CREATE OR REPLACE FUNCTION twinspan.momentary(expression text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
    WITH RECURSIVE t (oid) AS (
        SELECT m[1]::oid FROM regexp_matches(expression, ':consttype (\d+)', 'g') m
        UNION
        SELECT x.oid FROM t JOIN pg_type y ON y.oid = t.oid CROSS JOIN LATERAL (
            SELECT y.typelem UNION SELECT y.typbasetype
            UNION SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = y.oid OR to_jsonb(r)->>'rngmultitypid' = y.oid::text
            UNION SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = y.typrelid AND y.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped) x (oid)
         WHERE x.oid <> 0)
    SELECT EXISTS (SELECT FROM t JOIN pg_type y ON y.oid = t.oid JOIN pg_proc p ON p.oid = y.typinput
                    WHERE y.typtype = 'b' AND y.typelem = 0 AND p.provolatile <> 'i' AND (y.oid >= 16384 OR y.typname IN ('abstime', 'date', 'time', 'timestamp', 'timestamptz', 'timetz')))
$$;

CREATE OR REPLACE FUNCTION twinspan.folded(command text, mask text) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'iso_8601' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' AS
$$
BEGIN
    IF NOT twinspan.says_moment(command, mask) THEN
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
         WHERE twinspan.momentary(d.adbin::text)
        UNION ALL
        -- Children get theirs from their parents.
        SELECT 2, format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', n.name, c.conname, c.conname, pg_get_constraintdef(c.oid))
          FROM named n JOIN pg_constraint c ON c.conrelid = n.oid AND c.contype = 'c' AND c.coninhcount = 0 AND twinspan.momentary(c.conbin::text)
        UNION ALL
        SELECT 2, format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', n.name, c.conname, c.conname, pg_get_constraintdef(c.oid))
          FROM named n JOIN pg_constraint c ON c.conrelid = n.oid AND c.contype = 'x' AND c.coninhcount = 0 JOIN pg_index i ON i.indexrelid = c.conindid AND twinspan.momentary(concat(i.indpred, i.indexprs))
        UNION ALL
        SELECT 3, format('ALTER DOMAIN %s SET DEFAULT %s', format_type(t.oid, NULL), pg_get_expr(t.typdefaultbin, 0))
          FROM made m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid AND t.typtype = 'd' AND twinspan.momentary(t.typdefaultbin::text)
        UNION ALL
        SELECT x.place, x.sql FROM made m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid AND t.typtype = 'd'
          JOIN pg_constraint c ON c.contypid = t.oid AND c.contype = 'c' AND twinspan.momentary(c.conbin::text) CROSS JOIN LATERAL (
               VALUES (4, format('ALTER DOMAIN %s DROP CONSTRAINT %I', format_type(t.oid, NULL), c.conname)), (5, format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', format_type(t.oid, NULL), c.conname, pg_get_constraintdef(c.oid)))) x (place, sql)
        UNION ALL
        SELECT 6, format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, c.relname, ' WITH (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), ';'))
          FROM made m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind = 'v' JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.rulename = '_RETURN' AND twinspan.momentary(w.ev_action::text))
        UNION ALL
        SELECT 7, format('ALTER POLICY %I ON %I.%I', p.polname, n.nspname, c.relname) || coalesce(format(' USING (%s)', pg_get_expr(p.polqual, p.polrelid)), '')
               || coalesce(format(' WITH CHECK (%s)', pg_get_expr(p.polwithcheck, p.polrelid)), '')
          FROM made m JOIN pg_policy p ON m.classid = 'pg_policy'::regclass AND p.oid = m.objid JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE twinspan.momentary(concat(p.polqual, p.polwithcheck))
        UNION ALL
        SELECT x.place, x.sql FROM made m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind IN ('i', 'I') JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_index i ON i.indexrelid = c.oid AND twinspan.momentary(concat(i.indexprs, i.indpred)) AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid) CROSS JOIN LATERAL (
               VALUES (8, format('DROP INDEX %I.%I', n.nspname, c.relname)), (9, pg_get_indexdef(c.oid))) x (place, sql)
        UNION ALL
        SELECT 10, rtrim(pg_get_functiondef(m.objid), E'\n ') FROM pg_event_trigger_ddl_commands() x JOIN made m ON m.classid = x.classid AND m.objid = x.objid
          JOIN pg_proc p ON p.oid = m.objid AND twinspan.momentary(concat(p.proargdefaults, to_jsonb(p)->>'prosqlbody'))
         WHERE x.classid = 'pg_proc'::regclass AND x.object_type IN ('function', 'procedure')
        UNION ALL
        SELECT x.place, x.sql FROM made m JOIN pg_trigger g ON m.classid = 'pg_trigger'::regclass AND g.oid = m.objid AND twinspan.momentary(g.tgqual::text)
          JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL (
               VALUES (11, format('DROP TRIGGER %I ON %I.%I', g.tgname, n.nspname, c.relname)), (12, pg_get_triggerdef(g.oid))) x (place, sql)
        UNION ALL
        SELECT 13, regexp_replace(pg_get_ruledef(w.oid), '^CREATE RULE', 'CREATE OR REPLACE RULE')
          FROM made m JOIN pg_rewrite w ON m.classid = 'pg_rewrite'::regclass AND w.oid = m.objid AND w.rulename <> '_RETURN' AND twinspan.momentary(concat(w.ev_qual, w.ev_action))
        UNION ALL
        SELECT x.place, x.sql FROM made m JOIN pg_statistic_ext s ON m.classid = 'pg_statistic_ext'::regclass AND s.oid = m.objid AND twinspan.momentary(to_jsonb(s)->>'stxexprs')
          JOIN pg_namespace n ON n.oid = s.stxnamespace CROSS JOIN LATERAL (
               VALUES (14, format('DROP STATISTICS %I.%I', n.nspname, s.stxname)), (15, pg_get_statisticsobjdef(s.oid))) x (place, sql)) s);
END
$$;
