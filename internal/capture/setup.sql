-- What a linked primary has besides its tables: functions that keep every table
-- updatable while it is published. Made again at each link create.
CREATE OR REPLACE FUNCTION twinspan.keep_identity(t oid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
BEGIN
    SELECT c.oid::regclass AS name, c.relreplident AS now, i.was,
           (SELECT relname FROM pg_class x JOIN pg_index y ON y.indexrelid = x.oid WHERE y.indrelid = c.oid AND y.indisreplident) AS index,
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary AND x.indisvalid AND x.indimmediate) AS has_key,
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisreplident AND x.indisvalid AND x.indimmediate) AS has_index
      INTO r
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN twinspan.identity i ON i.oid = c.oid
     WHERE c.oid = t AND c.relkind = 'r' AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('twinspan', 'pg_catalog', 'information_schema');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF r.now = 'n' OR r.now = 'd' AND NOT r.has_key OR r.now = 'i' AND NOT r.has_index THEN
        INSERT INTO twinspan.identity (oid, was, was_index) VALUES (t, r.now, r.index) ON CONFLICT DO NOTHING;
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', r.name);
    ELSIF r.now = 'f' AND r.was = 'd' AND r.has_key THEN
        DELETE FROM twinspan.identity WHERE oid = t;
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', r.name);
    ELSIF r.now <> 'f' AND r.was IS NOT NULL THEN
        -- Somebody chose an identity of their own: it is theirs again.
        DELETE FROM twinspan.identity WHERE oid = t;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.without_identity() RETURNS TABLE (oid oid, name text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT c.oid, format('%I.%I', n.nspname, c.relname)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
       AND n.nspname NOT IN ('twinspan', 'pg_catalog', 'information_schema')
       AND (c.relreplident = 'n'
            OR NOT EXISTS (SELECT FROM pg_index x
                            WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
                              AND CASE c.relreplident WHEN 'd' THEN x.indisprimary ELSE x.indisreplident END))
$$;

CREATE OR REPLACE FUNCTION twinspan.on_ddl_end() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM twinspan.keep_identity(c.objid)
       FROM pg_event_trigger_ddl_commands() c
      WHERE c.classid = 'pg_class'::regclass AND c.object_type = 'table';
END
$$;

-- An index or a column that is dropped can take a table's identity with it, and
-- the command does not name the table.
CREATE OR REPLACE FUNCTION twinspan.on_drop() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                WHERE NOT d.is_temporary AND d.object_type IN ('index', 'table constraint', 'table column')) THEN
        PERFORM twinspan.keep_identity(w.oid) FROM twinspan.without_identity() w;
    END IF;
END
$$;

-- pgoutput of version 10 knows no TRUNCATE: there a trigger on each table says it
-- with a row, at its place in the stream. Triggers of all tables that the
-- statement reached fire together at its end, so to cascade is what it did.
CREATE OR REPLACE FUNCTION twinspan.on_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    INSERT INTO twinspan.signal (kind, payload)
    VALUES ('truncate', jsonb_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME, 'cascade', true, 'restart', false));
    RETURN NULL;
END
$$;
