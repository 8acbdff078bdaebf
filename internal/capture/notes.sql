-- What the functions here tell each other lies in tables where only the owner of schema
-- twinspan can read and write, bound to the backend and its transaction: a rollback takes a
-- note with it. Unlogged, for they mean nothing to anybody after the transaction.
-- Kinds: own (the next command is Twinspan's), keeping (a table is being given an identity), extension (a script of one is running),
-- rewritten (object and why), changed (how many rows the transaction had changed when the command that began at object began, or began to rewrite a table), dropped (what the running command took along was in the copy),
-- nested (how far a string within a function has been executed), said (where in the log a command was said last that something calls), wish (the running command says which identity a table is to have).
CREATE UNLOGGED TABLE IF NOT EXISTS twinspan.note (
    pid    int NOT NULL,
    xid    bigint NOT NULL,
    kind   text NOT NULL,
    object bigint NOT NULL DEFAULT 0,
    value  bigint NOT NULL DEFAULT 0,
    number bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS note_place ON twinspan.note (pid, xid, kind, object, number);

-- The statements of a string of several that a client sent, or a function executes: key says
-- which string; first and size are in bytes. mask is of those that can fire an event trigger.
CREATE UNLOGGED TABLE IF NOT EXISTS twinspan.piece (
    pid    int NOT NULL,
    key    bigint NOT NULL,
    number int NOT NULL,
    first  int NOT NULL,
    size   int NOT NULL,
    mask   text
);
CREATE INDEX IF NOT EXISTS piece_place ON twinspan.piece (pid, key, number);

-- Where in the client's string this session is: the value that a session last set of a
-- sequence is its own, stays when a transaction is rolled back, and is no lastval().
CREATE SEQUENCE IF NOT EXISTS twinspan.place;

-- Columns with a value that the catalogs keep for rows from before they were added: what the
-- twin has of them is settled.
CREATE TABLE IF NOT EXISTS twinspan.filled (
    object oid NOT NULL,
    number smallint NOT NULL,
    PRIMARY KEY (object, number)
);

-- Which signals each twin's agent understands (capture.Format).
CREATE TABLE IF NOT EXISTS twinspan.twin_format (
    link   uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    format int NOT NULL
);

-- The transaction that last changed what triggers ask of a link. A sequence, for what it holds is seen by a
-- transaction whose snapshot is older (manual, "Sequence Manipulation Functions").
CREATE SEQUENCE IF NOT EXISTS twinspan.link_changed;

CREATE OR REPLACE FUNCTION twinspan.on_link_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    IF TG_OP = 'INSERT' OR (old.role, old.phase, old.seeded, old.suspended, old.deleting) IS DISTINCT FROM (new.role, new.phase, new.seeded, new.suspended, new.deleting) THEN
        PERFORM setval('twinspan.link_changed', txid_current());
    END IF;
    RETURN NULL;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'twinspan.link'::pg_catalog.regclass AND tgname = 'link_changed') THEN
        CREATE TRIGGER link_changed AFTER INSERT OR UPDATE ON twinspan.link FOR EACH ROW EXECUTE PROCEDURE twinspan.on_link_change();
        ALTER TABLE twinspan.link ENABLE ALWAYS TRIGGER link_changed;
        PERFORM pg_catalog.setval('twinspan.link_changed', pg_catalog.txid_current());
    END IF;
END
$$;

-- What these functions are: capture.Format.
CREATE OR REPLACE FUNCTION twinspan.format() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';

CREATE OR REPLACE FUNCTION twinspan.take_note(kind text, object bigint DEFAULT 0, value bigint DEFAULT 0, number bigint DEFAULT 0) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    DELETE FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid <> txid_current();
    INSERT INTO twinspan.note VALUES (pg_backend_pid(), txid_current(), kind, object, value, number);
END
$$;

-- Whether there is a note of a kind.
CREATE OR REPLACE FUNCTION twinspan.noted(kind text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    RETURN EXISTS (SELECT FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = $1);
END
$$;

-- Takes one note of a kind away and says whether there was one.
CREATE OR REPLACE FUNCTION twinspan.spend_note(kind text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    DELETE FROM twinspan.note n WHERE n.ctid = (SELECT x.ctid FROM twinspan.note x
        WHERE x.pid = pg_backend_pid() AND x.xid = txid_current_if_assigned() AND x.kind = $1 LIMIT 1);
    RETURN FOUND;
END
$$;

-- Puts a signal into the stream. What the secondary needs is in the log; nothing
-- has to stay here.
CREATE OR REPLACE FUNCTION twinspan.say(kind text, payload jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    said bigint;
BEGIN
    -- No number of the sequence: lastval() is the application's.
    LOOP
        said := ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint & 2199023255551) << 22 | (pg_backend_pid() & 4194303);
        INSERT INTO twinspan.signal (id, kind, payload) VALUES (said, kind, payload) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
    DELETE FROM twinspan.signal s WHERE s.id = said;
END
$$;

-- Runs a command of Twinspan's own, which is no schema change to be carried. The note is
-- gone with it, whether a trigger has read it or not.
CREATE OR REPLACE FUNCTION twinspan.run_own(command text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM twinspan.take_note('own');
    EXECUTE command;
    PERFORM twinspan.spend_note('own');
END
$$;
