-- The gate of a database from which somebody has cut over: it refuses until a
-- superuser releases it.
CREATE OR REPLACE FUNCTION twinspan.refuse(what text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    IF to_regprocedure('twinspan.copied()') IS NOT NULL AND twinspan.copied() THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'read_only_sql_transaction',
        MESSAGE = format('cannot execute %s: database "%s" was left by a cutover of link "%s"', what, current_database(), $link$::text),
        HINT = format('Write to database "%s" at %s (agent "%s"). To open this one again, as a superuser: %s', $database$::text, $address$::text, $peer$::text, $release$::text);
END
$$;

-- For superusers alone, for who else sets session_replication_role?
CREATE OR REPLACE FUNCTION twinspan.release() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET session_replication_role = replica SET twinspan.pass_gate = on AS
$$
DECLARE
    t text;
BEGIN
    FOR t IN SELECT format('%I ON %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE tgfoid = 'twinspan.gate()'::regprocedure LOOP
        EXECUTE 'DROP TRIGGER ' || t;
    END LOOP;
    DROP EVENT TRIGGER IF EXISTS twinspan_gate;
    IF to_regprocedure('twinspan.put_back()') IS NOT NULL THEN
        PERFORM twinspan.put_back();
    END IF;
    EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database());
    IF EXISTS (SELECT FROM twinspan.link) THEN
        DROP FUNCTION twinspan.gate(), twinspan.gate_ddl(), twinspan.refuse(text), twinspan.shut_gate(oid), twinspan.release();
        DROP FUNCTION IF EXISTS twinspan.ticket(text, oid), twinspan.by_superuser(), twinspan.put_aside(), twinspan.put_back(), twinspan.put_back_for_change(), twinspan.modes(), twinspan.modes("char"[]), twinspan.shut_gates();
        DROP SEQUENCE twinspan.gate_state;
    ELSE
        DROP SCHEMA twinspan CASCADE;
    END IF;
END
$$;
