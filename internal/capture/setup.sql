-- What a linked primary has besides its tables. Made again at each link create.
CREATE OR REPLACE FUNCTION twinspan.watch_truncate(t oid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    name text;
    command text;
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
        FOREACH command IN ARRAY ARRAY[format('CREATE TRIGGER twinspan_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE PROCEDURE twinspan.on_truncate()', name),
                                       format('ALTER TABLE %s ENABLE ALWAYS TRIGGER twinspan_truncate', name)] LOOP
            -- Event triggers of users would run with the rights of this function.
            IF to_regprocedure('twinspan.run_unseen(text)') IS NULL THEN
                PERFORM twinspan.run_own(command);
            ELSE
                PERFORM twinspan.run_unseen(command);
            END IF;
        END LOOP;
    END IF;
END
$$;

-- DROP INDEX CONCURRENTLY takes a table's identity away and commits, before any
-- trigger can give it another: UPDATEs in between would fail. So it is refused
-- for an index that is an identity. The command's text is all that is known of it
-- at its start; it stands alone, for it runs in no transaction block.
CREATE OR REPLACE FUNCTION twinspan.on_drop_index() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp /*planner*/ AS
$$
DECLARE
    r record;
BEGIN
    IF current_query() !~* 'concurrently' OR twinspan.copied() THEN
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
