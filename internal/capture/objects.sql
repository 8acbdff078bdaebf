-- What a command was about, as the catalogs have it: its text can be resolved by the session
-- alone that gave it, where a temporary object goes before others of the same name.

-- Whether an object is gone when the session is: it is temporary, or hangs on something that is.
CREATE OR REPLACE FUNCTION twinspan.temporary(class oid, object oid) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    IF pg_my_temp_schema() = 0 THEN
        RETURN false;
    END IF;
    RETURN (WITH RECURSIVE d (class, object) AS (
        SELECT $1, $2
        UNION
        SELECT x.class, x.object FROM d CROSS JOIN LATERAL (
            SELECT p.refclassid AS class, p.refobjid AS object FROM pg_depend p
             WHERE p.classid = d.class AND p.objid = d.object AND p.objsubid = 0 AND p.refobjid >= 16384
            -- A view is dropped with its rule.
            UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r WHERE d.class = 'pg_class'::regclass AND r.ev_class = d.object AND r.rulename = '_RETURN') x)
    SELECT EXISTS (SELECT FROM d WHERE d.class = 'pg_namespace'::regclass AND d.object = pg_my_temp_schema()));
END
$$;

-- Whether the running command wrote a row of a catalog that is to be seen: after since, a place
-- within the transaction, and by one of its own ids. These and those of others that were begun
-- later are not below that of the transaction. Volatile, for then the server puts it in its caller's query (manual,
-- "Function Volatility Categories"; optimizer/util/clauses.c, inline_function): some ask for each row of a catalog.
CREATE OR REPLACE FUNCTION twinspan.written(writer xid, place cid, since bigint) RETURNS boolean
    LANGUAGE sql VOLATILE AS
$$
    SELECT CASE WHEN place::text::bigint > since AND (writer::text::bigint - (txid_current() & 4294967295) + 4294967296) % 4294967296 < 2147483648
        THEN txid_status(txid_current() + (writer::text::bigint - (txid_current() & 4294967295) + 4294967296) % 4294967296) = 'in progress' ELSE false END
$$;

-- On what a GRANT or REVOKE was, where some of it is temporary: what is not, as the command
-- names it, or nothing. NULL where nothing is temporary. The server tells no event trigger which objects
-- such a command was about, but it has written the row of each.
CREATE OR REPLACE FUNCTION twinspan.granted() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    since bigint;
    kind text;
    any_temporary boolean;
    list text;
BEGIN
    SELECT n.cmin::text::bigint INTO since FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'grant'
     ORDER BY n.cmin::text::bigint DESC LIMIT 1;
    IF since IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM twinspan.spend_note('grant');
    SELECT upper(x.object_type) INTO kind FROM pg_event_trigger_ddl_commands() x WHERE x.classid IS NULL LIMIT 1;
    IF kind IN ('TABLE', 'SEQUENCE') THEN
        SELECT bool_or(x.temporary), string_agg(i.identity, ', ' ORDER BY x.oid) FILTER (WHERE NOT x.temporary) INTO any_temporary, list
          FROM (SELECT y.oid, twinspan.temporary('pg_class'::regclass, y.oid) AS temporary FROM (
                SELECT c.oid FROM pg_class c WHERE c.relacl IS NOT NULL AND twinspan.written(c.xmin, c.cmin, since)
                UNION SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attacl IS NOT NULL AND twinspan.written(a.xmin, a.cmin, since)
                -- The last right of a column that is taken away leaves nothing.
                UNION SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = pg_my_temp_schema() AND twinspan.written(a.xmin, a.cmin, since)) y) x
         CROSS JOIN LATERAL pg_identify_object('pg_class'::regclass, x.oid, 0) i;
    ELSIF kind IN ('FUNCTION', 'PROCEDURE', 'ROUTINE') THEN
        SELECT bool_or(x.temporary), string_agg(i.identity, ', ' ORDER BY x.oid) FILTER (WHERE NOT x.temporary) INTO any_temporary, list
          FROM (SELECT p.oid, twinspan.temporary('pg_proc'::regclass, p.oid) AS temporary FROM pg_proc p WHERE twinspan.written(p.xmin, p.cmin, since)) x
         CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, x.oid, 0) i;
    ELSIF kind IN ('TYPE', 'DOMAIN') THEN
        SELECT bool_or(x.temporary), string_agg(i.identity, ', ' ORDER BY x.oid) FILTER (WHERE NOT x.temporary) INTO any_temporary, list
          FROM (SELECT t.oid, twinspan.temporary('pg_type'::regclass, t.oid) AS temporary FROM pg_type t WHERE twinspan.written(t.xmin, t.cmin, since)) x
         CROSS JOIN LATERAL pg_identify_object('pg_type'::regclass, x.oid, 0) i;
    END IF;
    RETURN CASE WHEN any_temporary THEN coalesce(kind || ' ' || list, '') END;
END
$$;

-- Refuses what stays when the session ends, but not as it is: a column, default, constraint
-- or another part of it hangs on something temporary.
CREATE OR REPLACE FUNCTION twinspan.refuse_temporary(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    r record;
BEGIN
    IF pg_my_temp_schema() = 0 THEN
        RETURN;
    END IF;
    FOR r IN WITH t AS (
                SELECT DISTINCT c.oid, x.object_identity AS name FROM pg_event_trigger_ddl_commands() x
                  JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid OR x.classid = 'pg_type'::regclass AND c.oid = (SELECT y.typrelid FROM pg_type y WHERE y.oid = x.objid)
                 WHERE c.relpersistence <> 't')
             SELECT t.name FROM t JOIN pg_depend p ON p.classid = 'pg_class'::regclass AND p.objid = t.oid AND p.objsubid > 0 AND p.refobjid >= 16384
              WHERE twinspan.temporary(p.refclassid, p.refobjid)
             UNION ALL
             SELECT t.name FROM t JOIN pg_depend p ON p.refclassid = 'pg_class'::regclass AND p.refobjid = t.oid AND p.classid IN ('pg_attrdef'::regclass, 'pg_constraint'::regclass)
              WHERE twinspan.temporary(p.classid, p.objid) LIMIT 1 LOOP
        PERFORM twinspan.refuse_ddl(tag, 'ddl_temporary', format('a part of "%s" depends on a temporary object, with which it would be dropped when the session ends', r.name),
            'Let it depend on what is not temporary.');
    END LOOP;
END
$$;

-- A table with all that CREATE TABLE can give it, but for what belongs to others: parents,
-- a type, partitions, sequences of its own.
CREATE OR REPLACE FUNCTION twinspan.table_text(t oid) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
    SELECT format('CREATE %sTABLE %I.%I (%s)%s%s', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END, n.nspname, c.relname,
            (SELECT coalesce(string_agg(p.part, ', ' ORDER BY p.kind, p.number), '') FROM (
                SELECT 1 AS kind, a.attnum::bigint AS number, concat(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)),
                    CASE WHEN a.attcollation <> y.typcollation THEN format(' COLLATE %I.%I', ln.nspname, l.collname) END,
                    CASE WHEN to_jsonb(a)->>'attgenerated' <> '' THEN format(' GENERATED ALWAYS AS (%s) %s', pg_get_expr(d.adbin, d.adrelid), CASE to_jsonb(a)->>'attgenerated' WHEN 'v' THEN 'VIRTUAL' ELSE 'STORED' END)
                         ELSE ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END,
                    CASE a.attidentity WHEN '' THEN '' ELSE format(' GENERATED %s AS IDENTITY (START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s)', CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,
                         s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END) END,
                    CASE WHEN a.attnotnull AND current_setting('server_version_num')::int < 180000 THEN ' NOT NULL' END) AS part
                  FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                  LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
                  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                  LEFT JOIN pg_sequence s ON a.attidentity <> '' AND s.seqrelid = (SELECT p.objid FROM pg_depend p
                       WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum AND p.deptype = 'i' LIMIT 1)
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                UNION ALL
                SELECT 2, k.oid::bigint, format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f', 'n', 'p', 'u', 'x')) p),
            CASE WHEN m.amname <> 'heap' THEN format(' USING %I', m.amname) ELSE '' END,
            CASE WHEN c.reloptions IS NOT NULL THEN ' WITH (' || array_to_string(c.reloptions, ', ') || ')' ELSE '' END)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_am m ON m.oid = (to_jsonb(c)->>'relam')::oid
     WHERE c.oid = t
$$;

-- What CREATE TABLE (LIKE ... INCLUDING ALL) makes besides the table: storage, indexes,
-- statistics, comments.
CREATE OR REPLACE FUNCTION twinspan.table_parts(t oid) RETURNS text[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
    SELECT coalesce(array_agg(x.part ORDER BY x.kind, x.number), '{}') FROM (
        SELECT 1 AS kind, a.attnum::bigint AS number, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STORAGE %s', i.identity, a.attname, CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END) AS part
          FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid AND y.typstorage <> a.attstorage CROSS JOIN pg_identify_object('pg_class'::regclass, t, 0) i
         WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 2, a.attnum::bigint, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET COMPRESSION %s', i.identity, a.attname, CASE to_jsonb(a)->>'attcompression' WHEN 'l' THEN 'lz4' ELSE 'pglz' END)
          FROM pg_attribute a CROSS JOIN pg_identify_object('pg_class'::regclass, t, 0) i
         WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped AND to_jsonb(a)->>'attcompression' <> ''
        UNION ALL
        -- The sequence of an identity that LIKE copied need not be of the column's type.
        SELECT 2, s.seqrelid::bigint, format('ALTER SEQUENCE %s AS %s MINVALUE %s MAXVALUE %s', i.identity, format_type(s.seqtypid, NULL), s.seqmin, s.seqmax)
          FROM pg_depend p JOIN pg_sequence s ON s.seqrelid = p.objid JOIN pg_attribute a ON a.attrelid = p.refobjid AND a.attnum = p.refobjsubid AND a.atttypid <> s.seqtypid
          CROSS JOIN LATERAL pg_identify_object('pg_class'::regclass, s.seqrelid, 0) i
         WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.refobjid = t AND p.deptype = 'i'
        UNION ALL
        SELECT 3, x.indexrelid::bigint, pg_get_indexdef(x.indexrelid) FROM pg_index x WHERE x.indrelid = t AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.conrelid = t AND k.contype IN ('p', 'u', 'x'))
        UNION ALL
        SELECT 4, s.oid::bigint, pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s WHERE s.stxrelid = t
        UNION ALL
        SELECT 5, d.objsubid::bigint, format('COMMENT ON %s %s IS %L', CASE WHEN d.objsubid > 0 THEN 'COLUMN' WHEN c.relkind = 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, i.identity, d.description)
          FROM pg_description d JOIN pg_class c ON c.oid = d.objoid CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i WHERE d.classoid = 'pg_class'::regclass AND d.objoid = t
        UNION ALL
        SELECT 6, d.objoid::bigint, format('COMMENT ON %s %s IS %L', CASE d.classoid WHEN 'pg_constraint'::regclass THEN 'CONSTRAINT' WHEN 'pg_class'::regclass THEN 'INDEX' ELSE 'STATISTICS' END, i.identity, d.description)
          FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, 0) i
         WHERE d.objsubid = 0 AND (d.classoid = 'pg_constraint'::regclass AND d.objoid IN (SELECT k.oid FROM pg_constraint k WHERE k.conrelid = t)
            OR d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = t)
            OR d.classoid = 'pg_statistic_ext'::regclass AND d.objoid IN (SELECT s.oid FROM pg_statistic_ext s WHERE s.stxrelid = t))) x
$$;

-- The relation that a name is, as a command writes it, under a search_path. The clause gives the
-- caller his own back.
CREATE OR REPLACE FUNCTION twinspan.relation_named(name text, path text) RETURNS oid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM set_config('search_path', path, true);
    RETURN pg_catalog.to_regclass(name)::pg_catalog.oid;
END
$$;

-- The bound that a partition has got: what stood for it was computed when the command ran.
-- Written so that it is read in one way whatever the settings.
CREATE OR REPLACE FUNCTION twinspan.partition_bound(tag text, mask text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'iso_8601' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' AS
$$
DECLARE
    part oid;
BEGIN
    IF mask !~ '\mfor\s+values\M' THEN
        RETURN NULL;
    ELSIF tag IN ('CREATE TABLE', 'CREATE FOREIGN TABLE') THEN
        SELECT x.objid INTO part FROM pg_event_trigger_ddl_commands() x JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid AND c.relispartition LIMIT 1;
    ELSIF tag = 'ALTER TABLE' AND mask ~ '\mattach\s+partition\M' THEN
        -- The command names the parent; it has written that it is one.
        SELECT i.inhrelid INTO part FROM pg_event_trigger_ddl_commands() x JOIN pg_inherits i ON x.classid = 'pg_class'::regclass AND i.inhparent = x.objid
         WHERE twinspan.written(i.xmin, i.cmin, -1) ORDER BY i.cmin::text::bigint DESC LIMIT 1;
    END IF;
    RETURN (SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_class c WHERE c.oid = part AND c.relispartition);
END
$$;

-- What gives the partitions that CREATE SCHEMA has made with it the bounds that the primary's catalogs have: its elements
-- are in its text, and what stands for a bound there (current_timestamp) is computed again.
CREATE OR REPLACE FUNCTION twinspan.bounds_of_elements(tag text, mask text) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'iso_8601' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' AS
$$
BEGIN
    IF tag <> 'CREATE SCHEMA' OR mask !~ '\mfor\s+values\M' THEN
        RETURN '{}';
    END IF;
    RETURN (SELECT coalesce(array_agg(e.command ORDER BY x.n, e.n), '{}')
              FROM (SELECT pn.nspname AS above_schema, p.relname AS above, n.nspname AS schema, c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound, c.oid::bigint AS n
                      FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relispartition AND c.relkind IN ('r', 'p')
                      JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_inherits i ON i.inhrelid = c.oid
                      JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace) x
             CROSS JOIN LATERAL (VALUES (1, format('ALTER TABLE %I.%I DETACH PARTITION %I.%I', x.above_schema, x.above, x.schema, x.name)),
                                        (2, format('ALTER TABLE %I.%I ATTACH PARTITION %I.%I %s', x.above_schema, x.above, x.schema, x.name, x.bound))) e (n, command)
             WHERE x.bound LIKE 'FOR VALUES %');
END
$$;

-- Refuses columns whose values nobody can write: their types have no input.
CREATE OR REPLACE FUNCTION twinspan.refuse_unwritable(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT x.object_identity AS name, a.attname, format_type(a.atttypid, a.atttypmod) AS type FROM pg_event_trigger_ddl_commands() x
               JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               JOIN pg_type y ON y.oid = a.atttypid AND y.typnamespace = 'pg_catalog'::regnamespace
                AND y.typname IN ('pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary') LIMIT 1 LOOP
        PERFORM twinspan.refuse_ddl(tag, 'ddl_type_unwritable', format('column "%s" of %s has the type %s, of which the server reads no values', r.attname, r.name, r.type),
            format('Leave the column out, or store it as text: %I::text.', r.attname));
    END LOOP;
END
$$;

-- The settings by which the session differs, in addition to those that the caller's trigger tells: whatever of
-- them may mean something to the command. Those with a name of their own (my.setting) are in no list:
-- they are looked for by the names that the command, its view, or the database's and roles' settings have.
CREATE OR REPLACE FUNCTION twinspan.session_settings(tag text, command text, mask text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    texts text := command;
BEGIN
    IF tag LIKE '% MATERIALIZED VIEW' THEN
        SELECT concat(texts, string_agg(pg_get_viewdef(x.objid), ' ')) INTO texts FROM pg_event_trigger_ddl_commands() x JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid AND c.relkind = 'm';
        SELECT concat(texts, string_agg(m[1], ' ')) INTO texts FROM pg_proc p CROSS JOIN LATERAL regexp_matches(p.prosrc, '(\mcurrent_setting\s*\(\s*''[^'']+'')', 'gi') m WHERE p.oid >= 16384;
    END IF;
    RETURN (SELECT coalesce(jsonb_object_agg(v.name, v.value), '{}') FROM (
        SELECT s.name, current_setting(s.name, true) AS value FROM pg_settings s
         WHERE s.source IN ('client', 'database', 'user', 'database user', 'session') AND s.context IN ('user', 'superuser')
           AND s.name <> ALL (ARRAY[/*planner names*/]::text[]) -- which are ours here; the caller's trigger tells the caller's
        UNION
        SELECT n.name, current_setting(n.name, true) FROM (
            SELECT lower(m[1]) AS name FROM regexp_matches(texts, '([[:alpha:]_][[:alnum:]_$]*\.[[:alpha:]_][[:alnum:]_$.]*)', 'g') m
            UNION SELECT lower(replace(m[1], '"', '')) FROM regexp_matches(command, '\mset\s+("?[[:alpha:]_][[:alnum:]_$]*"?(?:\s*\.\s*"?[[:alpha:]_][[:alnum:]_$]*"?)*)\s+from\s+current\M', 'gi') m WHERE mask ~ '\mfrom\s+current\M'
            UNION SELECT split_part(c, '=', 1) FROM pg_db_role_setting r CROSS JOIN LATERAL unnest(r.setconfig) c WHERE strpos(split_part(c, '=', 1), '.') > 0) n
         WHERE n.name !~ '^(twinspan|pg_catalog|pg_temp)\.') v
     WHERE v.value IS NOT NULL);
END
$$;

-- Whether a library is one of an extension that the servers of all twins have: an extension of this
-- database uses it, or one has its name.
CREATE OR REPLACE FUNCTION twinspan.shared_library(file text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (SELECT EXISTS (
        SELECT FROM (
            SELECT e.extname AS name FROM pg_proc p
              JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
              JOIN pg_extension e ON e.oid = d.refobjid
             WHERE regexp_replace(p.probin, '^.*/|\.(so|dylib|dll|sl)$', '', 'g') = l.name
            UNION ALL
            SELECT a.name FROM pg_available_extensions a WHERE a.name = l.name AND l.plain) x
         WHERE EXISTS (SELECT FROM twinspan.link WHERE role = 'primary') AND NOT EXISTS (
            SELECT FROM twinspan.link k WHERE k.role = 'primary' AND NOT EXISTS (SELECT FROM twinspan.twin_extension t WHERE t.link = k.id AND t.name = x.name)))
      FROM (SELECT regexp_replace(file, '^.*/|\.(so|dylib|dll|sl)$', '', 'g') AS name, file ~ '^(\$libdir/)?[^/$]+$' AS plain) l);
END
$$;

-- The table that CREATE TABLE has made like a temporary one, which the twin does not have: it is
-- written from the catalogs. NULL where there is no such.
CREATE OR REPLACE FUNCTION twinspan.made_like(tag text, q text, mask text) RETURNS oid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    r record;
BEGIN
    IF tag <> 'CREATE TABLE' OR pg_my_temp_schema() = 0 OR mask !~ '\mlike\M' OR NOT EXISTS (
        SELECT FROM pg_class c WHERE c.relnamespace = pg_my_temp_schema() AND c.relkind IN ('r', 'p', 'v', 'f', 'c') AND strpos(lower(replace(q, '""', '"')), lower(c.relname)) > 0) THEN
        RETURN NULL;
    END IF;
    FOR r IN SELECT c.oid, c.relkind = 'r' AND c.reloftype = 0 AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
                    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
                        AND d.deptype = 'a' AND EXISTS (SELECT FROM pg_sequence s WHERE s.seqrelid = d.objid)) AS plain
               FROM pg_event_trigger_ddl_commands() x JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid AND c.relkind IN ('r', 'p') AND x.command_tag = 'CREATE TABLE' LOOP
        IF r.plain THEN
            RETURN r.oid;
        END IF;
        PERFORM twinspan.refuse_ddl(tag, 'ddl_temporary', 'it is made like a temporary table, which the twin does not have, and has partitions, parents or a sequence of its own',
            'Write the columns out.');
    END LOOP;
    RETURN NULL;
END
$$;

-- A text without its comments, but for those within comments.
CREATE OR REPLACE FUNCTION twinspan.uncommented(q text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN regexp_replace(q, '("(?:[^"]|"")*"|''(?:[^'']|'''')*'')|--[^\n\r]*|/\*(?:[^*]|\*+[^*/])*\*+/', '\1 ', 'g');
END
$$;

-- The index that a command names, where its making may have failed before it was made valid by a
-- REINDEX: no event trigger saw either, so the twin may lack it. before makes it there, under the name that it
-- had. What is about one that is invalid here is not carried, for the twin does not have it.
CREATE OR REPLACE FUNCTION twinspan.named_index(tag text, q text, mask text, path text, OUT carried boolean, OUT before text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    name constant text := '((?:"(?:[^"]|"")*"|[^\s".;,()])+(?:\s*\.\s*(?:"(?:[^"]|"")*"|[^\s".;,()]+))?)';
    old text;
    index oid;
    r record;
BEGIN
    carried := true;
    q := twinspan.uncommented(q);
    IF tag = 'ALTER INDEX' AND mask ~ '\mattach\s+partition\M' THEN
        old := substring(q from '(?i)\mpartition\s+' || name);
    ELSIF tag = 'ALTER INDEX' AND mask !~ '\mall\s+in\s+tablespace\M' THEN
        old := substring(q from '(?i)\mindex\s+(?:if\s+exists\s+)?' || name);
        SELECT x.objid INTO index FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_class'::regclass LIMIT 1;
    ELSIF tag = 'ALTER TABLE' AND mask ~ '\musing\s+index\s+(?!tablespace\M)' THEN
        old := substring(q from '(?i)\musing\s+index\s+' || name);
        SELECT CASE WHEN mask ~ '\mreplica\s+identity\M' THEN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = x.objid AND i.indisreplident)
                    ELSE (SELECT k.conindid FROM pg_constraint k WHERE k.conrelid = x.objid AND k.contype IN ('p', 'u') ORDER BY k.oid DESC LIMIT 1) END
          INTO index FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_class'::regclass LIMIT 1;
    ELSIF tag = 'COMMENT' AND mask ~ '^comment\s+on\s+index\M' THEN
        old := substring(q from '(?i)\mindex\s+' || name);
    END IF;
    IF old IS NULL THEN
        RETURN;
    END IF;
    IF index IS NULL THEN
        index := twinspan.relation_named(old, path);
    END IF;
    SELECT n.nspname, c.relname, (parse_ident(old))[cardinality(parse_ident(old))] AS old, i.indisvalid, pg_get_indexdef(c.oid) AS def,
           CASE WHEN i.indisunique THEN 'CREATE UNIQUE INDEX ' ELSE 'CREATE INDEX ' END AS make
      INTO r FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid WHERE c.oid = index AND c.relkind = 'i';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    carried := r.indisvalid;
    before := format('DO %L', format('BEGIN IF pg_catalog.to_regclass(%L) IS NULL THEN %s; END IF; END', format('%I.%I', r.nspname, r.old),
        r.make || quote_ident(r.old) || substr(r.def, length(r.make || quote_ident(r.relname)) + 1)));
END
$$;

-- Whether CREATE INDEX on a partitioned table has taken over a partition's index whose making had failed: then
-- its own is invalid, though not by ON ONLY. The twin does not have that index, and may fail to make it.
CREATE OR REPLACE FUNCTION twinspan.left_invalid(mask text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (SELECT mask !~ '\mon\s+only\M' AND EXISTS (SELECT FROM pg_event_trigger_ddl_commands() x
      JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid AND c.relkind = 'I' JOIN pg_index i ON i.indexrelid = c.oid AND NOT i.indisvalid));
END
$$;

-- The tables that a command on an extension has made (its script's began at since), or found there,
-- and how rows that the script has put into them are taken out of the twin's, where it runs as well: the
-- primary's come with the stream.
CREATE OR REPLACE FUNCTION twinspan.tables_of_script(mask text, since bigint, made boolean) RETURNS TABLE (t oid, emptied text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
    SELECT c.oid, format('DO %L', format('BEGIN IF pg_catalog.has_table_privilege(%L, %L) THEN DELETE FROM ONLY %s; END IF; END', i.identity, 'DELETE', i.identity))
      FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r' AND c.relpersistence = 'p'
     CROSS JOIN LATERAL pg_identify_object('pg_class'::regclass, c.oid, 0) i
     WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND twinspan.written(d.xmin, d.cmin, since) = made
       AND mask ~ '^(create\s+extension|alter\s+extension\s+\S+\s+update)\M' AND (made OR mask ~ '^alter' AND d.refobjid = (SELECT x.objid FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_extension'::regclass LIMIT 1))
$$;

-- A materialized view as the catalogs have it.
CREATE OR REPLACE FUNCTION twinspan.view_text(t oid) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'iso_8601' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' AS
$$
    SELECT format('CREATE MATERIALIZED VIEW %I.%I (%s)%s%s AS %s%s', n.nspname, c.relname,
            (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped),
            CASE WHEN m.amname <> 'heap' THEN format(' USING %I', m.amname) ELSE '' END, CASE WHEN c.reloptions IS NOT NULL THEN ' WITH (' || array_to_string(c.reloptions, ', ') || ')' ELSE '' END,
            rtrim(pg_get_viewdef(t), ';'), CASE WHEN c.relispopulated THEN '' ELSE ' WITH NO DATA' END)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = (to_jsonb(c)->>'relam')::oid
     WHERE c.oid = t AND c.relkind = 'm'
$$;

-- A table or materialized view that was made without firing an event trigger (EXPLAIN ANALYZE CREATE TABLE AS), as the
-- change that makes it on the twin; NULL where it is gone. shape is what the stream says of the table: its name and
-- columns then, whatever has become of them. Without it the table has the columns that it was made with, which are those that the
-- command wrote that made its system columns, for what was done to it since is in the stream; with whole it is as it is now, and so is a view.
CREATE OR REPLACE FUNCTION twinspan.made_unseen(t oid, shape json, whole boolean) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    r record;
    command text;
    parts text[] := '{}';
BEGIN
    SELECT c.relkind, c.relname, n.nspname, pg_get_userbyid(c.relowner) AS owner, c.reloptions, m.amname,
           c.relpersistence, CASE c.relpersistence WHEN 'u' THEN 0 ELSE pg_relation_size(c.oid) + CASE WHEN c.reltoastrelid <> 0 THEN pg_relation_size(c.reltoastrelid) ELSE 0 END END AS bytes,
           s.xmin AS made, s.cmin AS place
      INTO r FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = (to_jsonb(c)->>'relam')::oid JOIN pg_attribute s ON s.attrelid = c.oid AND s.attnum = -1
     WHERE c.oid = t AND (c.relkind = 'm' OR c.relkind = 'r' AND c.relpersistence <> 't' AND c.reloftype = 0 AND (shape IS NOT NULL OR NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND NOT twinspan.written(i.xmin, i.cmin, -1))));
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF r.relkind = 'm' THEN
        command := twinspan.view_text(t);
        IF whole THEN
            parts := twinspan.table_parts(t);
        END IF;
    ELSIF whole THEN
        command := twinspan.table_text(t);
        SELECT twinspan.table_parts(t) || coalesce(array_agg(format('ALTER TABLE %I.%I %s ROW LEVEL SECURITY', r.nspname, r.relname, x.how)), '{}') INTO parts
          FROM pg_class c CROSS JOIN LATERAL (VALUES ('ENABLE', c.relrowsecurity), ('FORCE', c.relforcerowsecurity)) x (how, is_so) WHERE c.oid = t AND x.is_so;
    ELSE
        SELECT format('CREATE %sTABLE %I.%I (%s)%s%s', CASE WHEN r.relpersistence = 'u' AND shape IS NULL THEN 'UNLOGGED ' ELSE '' END, coalesce(convert_from(decode(shape->>'schema', 'base64'), getdatabaseencoding()), r.nspname), coalesce(convert_from(decode(shape->>'name', 'base64'), getdatabaseencoding()), r.relname),
                coalesce(string_agg(format('%I %s%s', x.name, format_type(x.type, x.modifier),
                    CASE WHEN a.attcollation <> 0 AND y.typcollation <> 0 AND a.attcollation <> y.typcollation THEN format(' COLLATE %I.%I', ln.nspname, l.collname) END), ', ' ORDER BY x.number), ''),
                CASE WHEN r.amname <> 'heap' THEN format(' USING %I', r.amname) ELSE '' END, CASE WHEN r.reloptions IS NOT NULL THEN ' WITH (' || array_to_string(r.reloptions, ', ') || ')' ELSE '' END)
          INTO command
          FROM (SELECT o.number::int AS number, convert_from(decode(o.c->>'name', 'base64'), getdatabaseencoding()) AS name, (o.c->>'type')::oid AS type, (o.c->>'modifier')::int AS modifier
                  FROM json_array_elements(shape->'columns') WITH ORDINALITY o (c, number)
                UNION ALL
                SELECT a.attnum, a.attname, a.atttypid, a.atttypmod FROM pg_attribute a
                 WHERE shape IS NULL AND a.attrelid = t AND NOT a.attisdropped AND a.attnum > 0
                   AND a.attnum <= coalesce((SELECT max(b.attnum) FROM pg_attribute b WHERE b.attrelid = t AND b.xmin = r.made AND b.cmin = r.place AND b.attnum > 0), 32767)) x
          JOIN pg_type y ON y.oid = x.type
          LEFT JOIN pg_attribute a ON a.attrelid = t AND a.attnum = x.number
          LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace;
    END IF;
    RETURN twinspan.described(CASE r.relkind WHEN 'm' THEN 'CREATE MATERIALIZED VIEW' ELSE 'CREATE TABLE' END, command, true,
        json_build_object('role', r.owner, 'session', r.owner, 'standard_conforming_strings', 'on'), ARRAY[format('%I.%I', r.nspname, r.relname)], parts, jsonb_build_object('bytes', r.bytes));
END
$$;

-- What makes the table that the running command is about, as it is now, where no event trigger can have seen it made: it has
-- no identity of a link's, nor a key that was there before this transaction. The same for a materialized view that is altered, of which
-- nothing tells whether it was seen. instead says that this is all that the command does. NULL where there is nothing of the kind. A table that
-- is attached as a partition is what the command is about, too: the table as it was made, for the command does the rest.
-- By the time the twin comes here the table may have rows, and be another one.
CREATE OR REPLACE FUNCTION twinspan.named_first(tag text, mask text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    IF tag !~ '^(ALTER (TABLE|MATERIALIZED VIEW)|COMMENT|CREATE (INDEX|TRIGGER|POLICY|RULE|STATISTICS))$' THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT twinspan.made_unseen(c.oid, NULL, a.part IS NULL)
           || jsonb_build_object('instead', a.part IS NULL AND (tag IN ('CREATE INDEX', 'CREATE STATISTICS', 'COMMENT') OR mask ~ '\m(add|attach|detach|drop|inherit|rename|schema|type|validate)\M'))
      FROM pg_event_trigger_ddl_commands() x
      LEFT JOIN LATERAL (SELECT h.inhrelid AS part FROM pg_inherits h WHERE tag = 'ALTER TABLE' AND mask ~ '\mattach\s+partition\M' AND x.classid = 'pg_class'::regclass AND h.inhparent = x.objid
                            AND twinspan.written(h.xmin, h.cmin, -1) ORDER BY h.cmin::text::bigint DESC LIMIT 1) a ON true
      LEFT JOIN pg_index i ON x.classid = 'pg_class'::regclass AND i.indexrelid = x.objid
      LEFT JOIN pg_trigger g ON x.classid = 'pg_trigger'::regclass AND g.oid = x.objid
      LEFT JOIN pg_policy p ON x.classid = 'pg_policy'::regclass AND p.oid = x.objid
      LEFT JOIN pg_rewrite w ON x.classid = 'pg_rewrite'::regclass AND w.oid = x.objid
      LEFT JOIN pg_statistic_ext s ON x.classid = 'pg_statistic_ext'::regclass AND s.oid = x.objid
      JOIN pg_class c ON c.oid = coalesce(a.part, i.indrelid, g.tgrelid, p.polrelid, w.ev_class, s.stxrelid, CASE WHEN x.classid = 'pg_class'::regclass THEN x.objid END)
     WHERE CASE c.relkind WHEN 'm' THEN tag = 'ALTER MATERIALIZED VIEW' OR tag = 'COMMENT'
                WHEN 'r' THEN c.relpersistence IN ('p', 'u') AND c.relreplident = 'd' AND NOT EXISTS (SELECT FROM twinspan.identity k WHERE k.oid = c.oid)
                    AND NOT EXISTS (SELECT FROM pg_index k JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = k.indexrelid AND d.refclassid = 'pg_constraint'::regclass
                                     WHERE k.indrelid = c.oid AND k.indisprimary AND NOT twinspan.written(d.xmin, d.cmin, -1)) END
     LIMIT 1);
END
$$;

-- The table or materialized view that an object is, or belongs to, by its identity; NULL where there is none.
CREATE OR REPLACE FUNCTION twinspan.relation_of(identity text) RETURNS oid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    parts text[] := parse_ident(identity, false);
    found oid;
BEGIN
    found := to_regclass(format('%I.%I', parts[1], parts[2]));
    RETURN coalesce((SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = found), found);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;
