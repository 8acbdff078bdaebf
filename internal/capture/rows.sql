-- How every row of a table is sent anew, for a twin that need not compute them alike: by reading.

-- Runs a command of Twinspan's own that event triggers of users are not to see.
CREATE OR REPLACE FUNCTION twinspan.run_unseen(command text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS
$$
BEGIN
    PERFORM twinspan.run_own(command);
END
$$;

-- Says the rows of a table, in portions. They are read by a function that belongs to the table's
-- owner, for to plan any query on a table can run functions that its owner has put there. The owner sees all rows
-- unless row security is forced on him, which is lifted meanwhile: nobody else sees the table now. Values are
-- written by their types' output functions, under settings of our own.
CREATE OR REPLACE FUNCTION twinspan.send_rows(t oid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    reader text := format('twinspan.reader_%s', pg_backend_pid());
    rows text := format('twinspan rows of %s', t);
    r record;
    part text;
BEGIN
    SELECT n.nspname, c.relname, c.relforcerowsecurity, format('%I.%I', n.nspname, c.relname) AS name, pg_get_userbyid(c.relowner) AS owner,
           coalesce(string_agg(format('x.%I', a.attname), ', ' ORDER BY a.attnum), '') AS list,
           coalesce(jsonb_agg(jsonb_build_object('name', twinspan.raw(a.attname), 'type', a.atttypid::bigint) ORDER BY a.attnum) FILTER (WHERE a.attname IS NOT NULL), '[]') AS columns
      INTO r FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(to_jsonb(a)->>'attgenerated', '') = ''
     WHERE c.oid = t AND c.relkind = 'r' AND c.relpersistence = 'p'
     GROUP BY c.oid, n.oid;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF r.relforcerowsecurity THEN
        PERFORM twinspan.run_unseen(format('ALTER TABLE ONLY %s NO FORCE ROW LEVEL SECURITY', r.name));
    END IF;
    PERFORM twinspan.run_unseen(format($make$CREATE FUNCTION %s(rows refcursor) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp SET row_security = on SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3
        SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmlbinary = 'base64' SET enable_indexscan = off SET enable_bitmapscan = off AS %L$make$, reader,
        format($body$DECLARE
    line text;
    part text := '';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.name OPERATOR(pg_catalog.=) rows::pg_catalog.text::pg_catalog.name) THEN
        OPEN rows NO SCROLL FOR SELECT CAST(pg_catalog.record_out(ROW(%s)) AS pg_catalog.text) FROM ONLY %s AS x;
    END IF;
    WHILE pg_catalog.length(part) OPERATOR(pg_catalog.<) 8000 LOOP
        FETCH rows INTO line;
        EXIT WHEN NOT FOUND;
        part := part OPERATOR(pg_catalog.||) line;
    END LOOP;
    RETURN part;
END$body$, r.list, r.name)));
    PERFORM twinspan.run_unseen(format('ALTER FUNCTION %s(refcursor) OWNER TO %I', reader, r.owner));
    PERFORM twinspan.say('rows_begin', jsonb_build_object('schema', twinspan.raw(r.nspname), 'table', twinspan.raw(r.relname), 'columns', r.columns));
    LOOP
        EXECUTE format('SELECT %s(%L)', reader, rows) INTO part;
        EXIT WHEN part = '';
        PERFORM twinspan.say('rows', jsonb_build_object('rows', twinspan.raw(part)));
    END LOOP;
    EXECUTE format('CLOSE %I', rows);
    PERFORM twinspan.run_unseen(format('DROP FUNCTION %s(refcursor)', reader));
    IF r.relforcerowsecurity THEN
        PERFORM twinspan.run_unseen(format('ALTER TABLE ONLY %s FORCE ROW LEVEL SECURITY', r.name));
    END IF;
    PERFORM twinspan.say('rows_end', jsonb_build_object('schema', twinspan.raw(r.nspname), 'table', twinspan.raw(r.relname)));
END
$$;
