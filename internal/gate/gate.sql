-- The gate of a secondary. Its triggers are plain ENABLE triggers: a session in
-- replica role, as the agent's is, passes; every other one, superusers included,
-- is refused for as long as the database is the secondary of a link.
CREATE OR REPLACE FUNCTION twinspan.refuse(what text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    l record;
BEGIN
    SELECT name, primary_address, peer, peer_database INTO l FROM twinspan.link WHERE role = 'secondary' LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'read_only_sql_transaction',
        MESSAGE = format('cannot execute %s: database "%s" is the secondary of link "%s"', what, current_database(), l.name),
        HINT = format('Write to the primary: database "%s" at %s (agent "%s").', l.peer_database, l.primary_address, l.peer);
END
$$;

CREATE OR REPLACE FUNCTION twinspan.gate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM twinspan.refuse(TG_OP);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.gate_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM twinspan.refuse(TG_TAG);
END
$$;
