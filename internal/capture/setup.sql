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
        -- A row that is there already is of an identity that somebody has changed since.
        INSERT INTO twinspan.identity (oid, was, was_index) VALUES (t, r.now, r.index)
            ON CONFLICT (oid) DO UPDATE SET was = excluded.was, was_index = excluded.was_index;
        PERFORM twinspan.run_own(format('ALTER TABLE %s REPLICA IDENTITY FULL', r.name));
    ELSIF r.now = 'f' AND r.was = 'd' AND r.has_key THEN
        DELETE FROM twinspan.identity WHERE oid = t;
        PERFORM twinspan.run_own(format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', r.name));
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

CREATE OR REPLACE FUNCTION twinspan.watch_truncate(t oid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    name text;
BEGIN
    IF current_setting('server_version_num')::int >= 110000 THEN
        RETURN;
    END IF;
    SELECT format('%I.%I', n.nspname, c.relname) INTO name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = t AND c.relkind = 'r' AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('twinspan', 'pg_catalog', 'information_schema')
       AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = t AND g.tgname = 'twinspan_truncate');
    IF FOUND THEN
        PERFORM twinspan.run_own(format('CREATE TRIGGER twinspan_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE PROCEDURE twinspan.on_truncate()', name));
        PERFORM twinspan.run_own(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER twinspan_truncate', name));
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.on_ddl_end() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM twinspan.keep_identity(c.objid), twinspan.watch_truncate(c.objid)
       FROM pg_event_trigger_ddl_commands() c
      WHERE c.classid = 'pg_class'::regclass AND c.object_type = 'table' AND c.schema_name IS DISTINCT FROM 'pg_temp';
END
$$;

-- An index or a column that is dropped can take a table's identity with it, and
-- the command does not name the table. But it has locked it: only such tables
-- are looked at, so that nobody's command waits for a table it has not to do with.
CREATE OR REPLACE FUNCTION twinspan.on_drop() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                WHERE NOT d.is_temporary AND d.object_type IN ('index', 'table constraint', 'table column')) THEN
        PERFORM twinspan.keep_identity(w.oid) FROM twinspan.without_identity() w
          WHERE w.oid IN (SELECT l.relation FROM pg_locks l
                           WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.granted
                             AND l.mode IN ('AccessExclusiveLock', 'ShareUpdateExclusiveLock')
                             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()));
    END IF;
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
        DELETE FROM twinspan.identity i
         USING pg_event_trigger_dropped_objects() d
         WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.objid = i.oid;
    END IF;
END
$$;

-- DROP INDEX CONCURRENTLY takes a table's identity away and commits, before any
-- trigger can give it another: UPDATEs in between would fail. So it is refused
-- for an index that is an identity. The command's text is all that is known of it
-- at its start; it stands alone, for it runs in no transaction block.
CREATE OR REPLACE FUNCTION twinspan.on_drop_index() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
BEGIN
    IF current_query() !~* 'concurrently' THEN
        RETURN;
    END IF;
    FOR r IN SELECT x.relname, i.indrelid::regclass AS name FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                JOIN pg_class c ON c.oid = i.indrelid AND c.relreplident = 'i'
              WHERE i.indisreplident LOOP
        IF current_query() ~* ('(^|[^[:alnum:]_$])' || regexp_replace(replace(r.relname, '"', '""'), '([^[:alnum:]_])', '\\\1', 'g')
                || '($|[^[:alnum:]_$])') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('cannot drop index "%s" concurrently: it is the replica identity of the linked table %s', r.relname, r.name),
                HINT = format('Drop it without CONCURRENTLY, or first choose another identity: ALTER TABLE %s REPLICA IDENTITY FULL', r.name);
        END IF;
    END LOOP;
END
$$;

-- pgoutput of version 10 knows no TRUNCATE: there a trigger on each table says it
-- with a row, at its place in the stream. Triggers of all tables that the
-- statement reached fire together at its end, so to cascade is what it did.
CREATE OR REPLACE FUNCTION twinspan.on_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM twinspan.say('truncate', jsonb_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME, 'cascade', true, 'restart', false));
    RETURN NULL;
END
$$;
