-- The gate. Its triggers are ENABLE ALWAYS triggers, for sessions in replica role, too,
-- whoever they are. Those of agents say by a setting that they are (pg.PassGate), and
-- pass, but for what code of users does in them (twinspan.ticket). Every other one,
-- superusers included, is refused for as long as the database is the secondary of a link. On a
-- primary that is about to change places it passes, or waits.

-- What the gate does: 1 lets through, 2 refuses, 2 + n makes a transaction wait n
-- milliseconds before its first write, 9999 has writers wait for whoever holds the lock
-- below, and refuses those that are still to be refused then. A sequence, for what it
-- holds is seen by a transaction whose snapshot is older (manual, "Sequence Manipulation
-- Functions": setval is not undone, and its row is visible to all).
CREATE SEQUENCE IF NOT EXISTS twinspan.gate_state MAXVALUE 10000;

-- A writer has the lock of this table, in the mode of writers, until its transaction ends.
-- An agent that asks for it exclusively waits for those, and whoever begins to write later
-- waits behind the agent. Nobody else has rights here, so nobody else can lock it: what
-- anybody could lock, anybody could keep an agent from.
CREATE UNLOGGED TABLE IF NOT EXISTS twinspan.gate_pass ();

-- The limit of connections that the database had before nobody was let in, because the
-- gate could not be shut.
CREATE TABLE IF NOT EXISTS twinspan.gate_limit (id int PRIMARY KEY, was int NOT NULL);

CREATE OR REPLACE FUNCTION twinspan.refuse(what text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    l record;
    state bigint := (SELECT last_value FROM twinspan.gate_state);
BEGIN
    IF state <> 2 THEN
        IF state BETWEEN 3 AND 1002 AND txid_current_if_assigned() IS NULL THEN
            PERFORM pg_sleep((state - 2) / 1000.0);
        END IF;
        LOCK TABLE twinspan.gate_pass IN ROW EXCLUSIVE MODE;
        IF (SELECT last_value FROM twinspan.gate_state) NOT IN (2, 9999) THEN
            RETURN;
        END IF;
    END IF;
    -- The row may be as an older snapshot shows it: then this was the primary.
    SELECT name, role, primary_address, peer, peer_database INTO l FROM twinspan.link ORDER BY role DESC LIMIT 1;
    IF twinspan.copied() THEN
        RETURN;
    ELSIF NOT FOUND THEN
        IF current_setting('transaction_isolation') LIKE 'read %' THEN
            RETURN;
        END IF;
        RAISE EXCEPTION USING
            ERRCODE = 'read_only_sql_transaction',
            MESSAGE = format('cannot execute %s: database "%s" has been linked since the snapshot of this transaction, and is a secondary now', what, current_database()),
            HINT = 'Connect again; twinspan link list on the agent of this server says where the primary is.';
    END IF;
    IF l.role = 'primary' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'read_only_sql_transaction',
            MESSAGE = format('cannot execute %s: database "%s" accepts no writes, for it changes places with its twin by link "%s"', what, current_database(), l.name),
            HINT = format('Connect again; the primary may be database "%s" of agent "%s" now.', l.peer_database, l.peer);
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'read_only_sql_transaction',
        MESSAGE = format('cannot execute %s: database "%s" is the secondary of link "%s"', what, current_database(), l.name),
        HINT = format('Write to the primary: database "%s" at %s (agent "%s"). If this server is a copy of the secondary''s, a superuser makes an ordinary database of this one: BEGIN READ WRITE; SELECT twinspan.free(); COMMIT', l.peer_database, l.primary_address, l.peer);
END
$$;

-- Whether a session in which code of users runs may write on a relation, 0 for a change of the
-- schema. pass is what it may, in a setting of the server's own that only superusers can set
-- (pg.TakeSQL): everything, or the named statements, of which this is one then and no more.
CREATE OR REPLACE FUNCTION twinspan.ticket(pass text, what oid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    wanted text := '_' || what || '_';
    at int := strpos(pass || '_', wanted);
BEGIN
    IF pass NOT LIKE 'twinspan\_ticket\_%' OR at = 0 THEN
        RETURN false;
    END IF;
    PERFORM set_config('backtrace_functions', left(pass, at - 1) || substr(pass, at + length(wanted) - 1), false);
    RETURN true;
END
$$;

-- Whether a superuser has logged in. Neither setting that lets through is for superusers alone: from version 15 on, roles
-- can be granted that they set session_replication_role.
CREATE OR REPLACE FUNCTION twinspan.by_superuser() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    RETURN coalesce((SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = session_user), false);
END
$$;

-- Both have every name qualified in place of a search_path of their own: setting one
-- costs more than all the rest of a call, and this one is made for each statement that
-- is applied.
CREATE OR REPLACE FUNCTION twinspan.gate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER AS
$$
DECLARE
    pass pg_catalog.text;
BEGIN
    IF pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica' AND pg_catalog.current_setting('twinspan.pass_gate', true) OPERATOR(pg_catalog.=) 'on'
        AND (session_user OPERATOR(pg_catalog.=) current_user OR twinspan.by_superuser()) THEN
        pass := pg_catalog.current_setting('backtrace_functions', true);
        IF pass IS NULL OR pass OPERATOR(pg_catalog.=) 'twinspan_pass' OR pg_catalog.left(pass, 9) OPERATOR(pg_catalog.<>) 'twinspan_' OR twinspan.ticket(pass, TG_RELID) THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM twinspan.refuse(TG_OP);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.gate_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER AS
$$
DECLARE
    pass pg_catalog.text;
BEGIN
    IF pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica' AND pg_catalog.current_setting('twinspan.pass_gate', true) OPERATOR(pg_catalog.=) 'on'
        AND (session_user OPERATOR(pg_catalog.=) current_user OR twinspan.by_superuser()) THEN
        pass := pg_catalog.current_setting('backtrace_functions', true);
        IF pass IS NULL OR pass OPERATOR(pg_catalog.=) 'twinspan_pass' OR pg_catalog.left(pass, 9) OPERATOR(pg_catalog.<>) 'twinspan_' OR twinspan.ticket(pass, 0::pg_catalog.oid) THEN
            RETURN;
        END IF;
    END IF;
    PERFORM twinspan.refuse(TG_TAG);
END
$$;

-- Shuts a table. Foreign tables take triggers of TRUNCATE only in newer versions, and
-- write through to elsewhere. A note tells these commands from schema changes, which cross to
-- the twin (capture/notes.sql). The gate's trigger is told by its function: the name may be taken, by a
-- trigger of the table's owner that does nothing.
CREATE OR REPLACE FUNCTION twinspan.shut_gate(t oid) RETURNS void
    LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
    g record;
    called text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind INTO r FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = t;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR g IN SELECT x.tgname, x.tgtype = CASE r.relkind WHEN 'f' THEN 30 ELSE 62 END AND x.tgqual IS NULL AND x.tgattr::text = '' AS whole
               FROM pg_trigger x WHERE x.tgrelid = t AND x.tgfoid = 'twinspan.gate()'::regprocedure AND NOT x.tgisinternal LOOP
        IF g.whole AND called IS NULL THEN
            called := g.tgname;
        ELSE
            EXECUTE format('DROP TRIGGER %I ON %s', g.tgname, r.name);
        END IF;
    END LOOP;
    IF called IS NULL THEN
        called := CASE WHEN EXISTS (SELECT FROM pg_trigger x WHERE x.tgrelid = t AND x.tgname = 'twinspan_gate') THEN 'twinspan_gate_' || t ELSE 'twinspan_gate' END;
        EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE OR DELETE%s ON %s FOR EACH STATEMENT EXECUTE PROCEDURE twinspan.gate()',
            called, CASE r.relkind WHEN 'f' THEN '' ELSE ' OR TRUNCATE' END, r.name);
    END IF;
    IF to_regprocedure('twinspan.run_own(text)') IS NOT NULL THEN
        PERFORM twinspan.run_own(format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', r.name, called));
    ELSE
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', r.name, called);
    END IF;
END
$$;

-- Shuts the tables that are open. It is called behind each schema change, and keeps its plan.
CREATE OR REPLACE FUNCTION twinspan.shut_gates() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    t oid;
BEGIN
    FOR t IN SELECT c.oid/*open tables*/ LOOP
        PERFORM twinspan.shut_gate(t);
    END LOOP;
END
$$;
