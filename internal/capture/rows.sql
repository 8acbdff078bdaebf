-- How every row of a table is sent anew, for a twin that need not compute them alike: by reading.

-- Runs a command of Twinspan's own that event triggers of users are not to see.
CREATE OR REPLACE FUNCTION twinspan.run_unseen(command text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS
$$
DECLARE
    fire text := current_setting('event_triggers', true);
BEGIN
    -- From 17 on also those that are enabled as ALWAYS.
    IF fire = 'on' AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        PERFORM set_config('event_triggers', 'off', true), twinspan.run_own(command), set_config('event_triggers', fire, true);
    ELSE
        PERFORM twinspan.run_own(command);
    END IF;
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
    rows refcursor := format('twinspan rows of %s', t);
    read text := format('SELECT %s($1, $2)', reader);
    block bigint := 0;
    body text;
    part text;
    piece constant int := 8 * 1024 * 1024; -- bytes
    whole bytea;
    made oid;
    r record;
BEGIN
    -- Its name is read again with each portion: its schema's owner could put another table there.
    PERFORM twinspan.keep_names(ARRAY(SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = t));
    SELECT n.nspname, c.relname, c.relowner, c.relforcerowsecurity, format('%I.%I', n.nspname, c.relname) AS name, pg_get_userbyid(c.relowner) AS owner,
           c.reltoastrelid <> 0 AND pg_relation_size(c.reltoastrelid) > 0 AS long, pg_relation_size(c.oid) / current_setting('block_size')::int AS blocks,
           coalesce(string_agg(format('x.%I', a.attname), ', ' ORDER BY a.attnum), '') AS list,
           coalesce(jsonb_agg(jsonb_build_object('name', twinspan.raw(a.attname), 'type', a.atttypid::bigint) ORDER BY a.attnum) FILTER (WHERE a.attname IS NOT NULL), '[]') AS columns
      INTO r FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(to_jsonb(a)->>'attgenerated', '') = ''
     WHERE c.oid = t AND c.relkind = 'r' AND c.relpersistence = 'p'
     GROUP BY c.oid, c.relname, c.relforcerowsecurity, c.relowner, c.reltoastrelid, n.nspname; -- catalogs have keys since 14 only
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF r.relforcerowsecurity THEN
        PERFORM twinspan.run_unseen(format('ALTER TABLE ONLY %s NO FORCE ROW LEVEL SECURITY', r.name));
    END IF;
    -- Where a value can be long, one row is read after the other. Elsewhere all rows of a block make a portion, and are
    -- found by their places: a tenth of the work.
    body := CASE WHEN r.long THEN format($body$DECLARE
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
END$body$, r.list, r.name) ELSE format($body$DECLARE
    part text;
BEGIN
    SELECT pg_catalog.string_agg(CAST(pg_catalog.record_out(ROW(%s)) AS pg_catalog.text), '') INTO part FROM ONLY %s AS x
     WHERE %s;
    RETURN coalesce(part, '');
END$body$, r.list, r.name, CASE WHEN current_setting('server_version_num')::int >= 140000
            THEN $where$x.ctid OPERATOR(pg_catalog.>=) pg_catalog.format('(%s,0)', $2)::pg_catalog.tid AND x.ctid OPERATOR(pg_catalog.<) pg_catalog.format('(%s,0)', $2 OPERATOR(pg_catalog.+) 1)::pg_catalog.tid$where$
            ELSE format($where$x.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT pg_catalog.format('(%%s,%%s)', $2, o)::pg_catalog.tid FROM pg_catalog.generate_series(1, %s) o))$where$,
                current_setting('block_size')::int / 28) END) END;
    PERFORM twinspan.run_unseen(format($make$CREATE FUNCTION %s(rows refcursor, block bigint) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp SET row_security = on SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3
        SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmlbinary = 'base64' SET enable_indexscan = off SET enable_bitmapscan = off SET enable_tidscan = on AS %L$make$,
        reader, body));
    PERFORM twinspan.run_unseen(format('ALTER FUNCTION %s(refcursor, bigint) OWNER TO %I', reader, r.owner));
    -- Its owner's code runs in each call, and can change it: it is proved before the next.
    made := to_regprocedure(format('%s(refcursor, bigint)', reader));
    PERFORM twinspan.say('rows_begin', jsonb_build_object('schema', twinspan.raw(r.nspname), 'table', twinspan.raw(r.relname), 'columns', r.columns));
    LOOP
        EXIT WHEN NOT r.long AND block >= r.blocks;
        IF block > 0 AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = made AND p.prosecdef AND p.proowner = r.relowner AND p.provolatile = 'v' AND p.prosrc = body) THEN
            RAISE EXCEPTION USING ERRCODE = 'TSF02', MESSAGE = format('code at table %s has changed the function that reads its rows for the link, which is its owner''s', r.name);
        END IF;
        EXECUTE read INTO part USING rows, block;
        EXIT WHEN r.long AND part = '';
        IF octet_length(part) > 4 * piece THEN -- a document must stay below 256 MB (jsonb.h)
            whole := convert_to(part, getdatabaseencoding()::name);
            FOR i IN 0 .. (octet_length(whole) - 1) / piece LOOP
                PERFORM twinspan.say('rows', jsonb_build_object('rows', translate(encode(substring(whole FROM i * piece + 1 FOR piece), 'base64'), E'\n', ''),
                    'more', (i + 1) * piece < octet_length(whole)));
            END LOOP;
        ELSIF part <> '' THEN
            PERFORM twinspan.say('rows', jsonb_build_object('rows', twinspan.raw(part)));
        END IF;
        block := block + 1;
    END LOOP;
    IF r.long THEN
        EXECUTE format('CLOSE %I', rows::text);
    END IF;
    PERFORM twinspan.run_unseen(format('DROP FUNCTION %s(refcursor, bigint)', reader));
    IF r.relforcerowsecurity THEN
        PERFORM twinspan.run_unseen(format('ALTER TABLE ONLY %s FORCE ROW LEVEL SECURITY', r.name));
    END IF;
    PERFORM twinspan.say('rows_end', jsonb_build_object('schema', twinspan.raw(r.nspname), 'table', twinspan.raw(r.relname)));
END
$$;
