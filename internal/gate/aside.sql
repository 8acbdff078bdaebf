-- On a secondary no trigger of the users fires, whatever its mode: its rows hold already
-- what triggers did on the primary. Those that fire in replica role, too, as rules and
-- event triggers can, get the ordinary mode, in which nothing of an agent fires them, and
-- have the one that they had in this table until the side takes writes.
CREATE TABLE IF NOT EXISTS twinspan.trigger_mode (
    class  oid NOT NULL,
    object oid NOT NULL,
    mode   "char" NOT NULL,
    PRIMARY KEY (class, object)
);

-- What there is to put aside, and to put back: what has one of the modes, with its mode, and a command to be
-- completed with the words for a mode. What belongs to the link is told by its function. It is called around each
-- schema change: an SQL function would be planned at each call.
DROP FUNCTION IF EXISTS twinspan.modes();
CREATE OR REPLACE FUNCTION twinspan.modes(modes "char"[], OUT class oid, OUT object oid, OUT mode "char", OUT command text) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    RETURN QUERY
    SELECT 'pg_trigger'::regclass::oid, t.oid, t.tgenabled, format('ALTER TABLE ONLY %I.%I %%s TRIGGER %I', n.nspname, c.relname, t.tgname)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid
     WHERE t.tgenabled = ANY (modes) AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND p.pronamespace <> to_regnamespace('twinspan') AND n.nspname <> 'twinspan'
    UNION ALL
    SELECT 'pg_rewrite'::regclass, r.oid, r.ev_enabled, format('ALTER TABLE %I.%I %%s RULE %I', n.nspname, c.relname, r.rulename)
      FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE r.ev_enabled = ANY (modes) AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'pg_event_trigger'::regclass, e.oid, e.evtenabled, format('ALTER EVENT TRIGGER %I %%s', e.evtname)
      FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
     WHERE e.evtenabled = ANY (modes) AND p.pronamespace <> to_regnamespace('twinspan');
END
$$;

-- Only where the database is a secondary.
CREATE OR REPLACE FUNCTION twinspan.put_aside() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
BEGIN
    IF NOT EXISTS (SELECT FROM twinspan.link l WHERE l.role = 'secondary') THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM twinspan.trigger_mode) THEN
        DELETE FROM twinspan.trigger_mode k WHERE NOT EXISTS (SELECT FROM twinspan.modes('{O}') m WHERE m.class = k.class AND m.object = k.object);
    END IF;
    -- Event triggers first, for they fire at what is done to the others.
    FOR r IN SELECT m.class, m.object, m.mode, m.command FROM twinspan.modes('{A,R}') m ORDER BY m.class = 'pg_event_trigger'::regclass DESC LOOP
        INSERT INTO twinspan.trigger_mode VALUES (r.class, r.object, r.mode);
        EXECUTE replace(r.command, '%s', 'ENABLE');
    END LOOP;
END
$$;

-- A mode that somebody has given meanwhile stays.
CREATE OR REPLACE FUNCTION twinspan.put_back() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
BEGIN
    PERFORM twinspan.put_back_for_change();
    FOR r IN SELECT m.command, k.mode FROM twinspan.modes('{O}') m JOIN twinspan.trigger_mode k ON k.class = m.class AND k.object = m.object LOOP
        EXECUTE replace(r.command, '%s', CASE r.mode WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END);
    END LOOP;
    DELETE FROM twinspan.trigger_mode;
END
$$;

-- Before a schema change that is replayed: event triggers stay aside, for they would run what a role of the primary
-- wrote at the agent's own commands. No change that crosses is one of an event trigger.
CREATE OR REPLACE FUNCTION twinspan.put_back_for_change() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
BEGIN
    IF NOT EXISTS (SELECT FROM twinspan.trigger_mode) THEN
        RETURN;
    END IF;
    FOR r IN SELECT m.class, m.object, m.command, k.mode FROM twinspan.modes('{O}') m JOIN twinspan.trigger_mode k ON k.class = m.class AND k.object = m.object
              WHERE m.class <> 'pg_event_trigger'::regclass LOOP
        -- It is no change of schema that crosses.
        IF to_regprocedure('twinspan.take_note(text,bigint,bigint,bigint)') IS NOT NULL THEN
            PERFORM twinspan.take_note('own');
        END IF;
        EXECUTE replace(r.command, '%s', CASE r.mode WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END);
        DELETE FROM twinspan.trigger_mode k WHERE k.class = r.class AND k.object = r.object;
    END LOOP;
END
$$;
