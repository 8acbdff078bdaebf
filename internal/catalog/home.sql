-- Which database is linked: a dump carries these numbers elsewhere, where the table has
-- another oid, and the server or the database another identity.
CREATE TABLE IF NOT EXISTS twinspan.home (
    id       int PRIMARY KEY CHECK (id = 1),
    server   text NOT NULL,
    database bigint NOT NULL,
    relation bigint NOT NULL
);
INSERT INTO twinspan.home SELECT 1, (SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() s),
    (SELECT d.oid::bigint FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()), 'twinspan.home'::pg_catalog.regclass::pg_catalog.oid::bigint
    ON CONFLICT (id) DO UPDATE SET server = excluded.server, database = excluded.database, relation = excluded.relation
    WHERE (home.server, home.database, home.relation) IS DISTINCT FROM (excluded.server, excluded.database, excluded.relation);

-- Whether this database is a copy that was made from a dump, or with CREATE DATABASE ...
-- TEMPLATE: an ordinary one. A database that was copied file by file with its server, or upgraded with it
-- (pg_upgrade keeps the oids of tables), may be the linked one itself: it is none, and so is one of which nothing is noted.
CREATE OR REPLACE FUNCTION twinspan.copied() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    h record;
BEGIN
    SELECT * INTO h FROM twinspan.home;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF h.server = (SELECT s.system_identifier::text FROM pg_control_system() s) THEN
        RETURN h.database <> (SELECT d.oid::bigint FROM pg_database d WHERE d.datname = current_database());
    END IF;
    RETURN h.relation <> 'twinspan.home'::regclass::oid::bigint;
END
$$;

-- Makes an ordinary database of one that was copied with its server. For superusers alone,
-- for who else sets session_replication_role?
CREATE OR REPLACE FUNCTION twinspan.free() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
BEGIN
    -- No clause of the function's: to make one with it takes a superuser, too.
    PERFORM set_config('session_replication_role', 'replica', true), set_config('twinspan.pass_gate', 'on', true);
    IF EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = current_database() AND a.application_name LIKE 'twinspan/%' AND a.pid <> pg_backend_pid()) THEN
        RAISE EXCEPTION 'an agent works in database "%": it is no copy', current_database()
            USING HINT = 'To end the link: twinspan link delete.';
    END IF;
    IF to_regprocedure('twinspan.put_back()') IS NOT NULL THEN
        PERFORM twinspan.put_back();
    END IF;
    EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database());
    FOR r IN SELECT pubname FROM pg_publication WHERE pubname IN (SELECT 'twinspan_' || replace(id::text, '-', '') FROM twinspan.link) LOOP
        EXECUTE format('DROP PUBLICATION %I', r.pubname);
    END LOOP;
    DROP SCHEMA twinspan CASCADE;
END
$$;
