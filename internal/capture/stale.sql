-- What keeps a schema change from being made by what its transaction does not see: above READ COMMITTED, the queries
-- of event triggers see the catalogs of the transaction's snapshot, and the server those of now.

-- Tables, schemas and types whose definition has been changed, by their numbers. Who changes a row that a transaction
-- above READ COMMITTED cannot see, or that has been changed behind its snapshot, is told so by the server (40001): that
-- alone is what they are for. After a crash there are no such transactions, so it is unlogged. An object has more than
-- one row so that nobody waits for another who makes an index at the same table.
CREATE UNLOGGED TABLE IF NOT EXISTS twinspan.touched (
    object oid NOT NULL,
    slot   int NOT NULL,
    xid    bigint NOT NULL,
    PRIMARY KEY (object, slot)
);

CREATE OR REPLACE FUNCTION twinspan.conflict(what text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'serialization_failure',
        MESSAGE = format('could not serialize access: %s since the snapshot of this transaction', what),
        HINT = 'Try the transaction again.';
END
$$;

-- A schema change under a snapshot that is older than the link, or than the copy that is being made, would be passed
-- over by triggers that cannot see either: the transaction has to begin again, as after any conflict of its level.
CREATE OR REPLACE FUNCTION twinspan.refuse_stale() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    changed bigint;
BEGIN
    IF current_setting('transaction_isolation') LIKE 'read %' THEN
        RETURN;
    END IF;
    changed := (SELECT last_value FROM twinspan.link_changed);
    IF changed = txid_current() OR txid_visible_in_snapshot(changed, txid_current_snapshot()) OR changed < txid_current() AND txid_status(changed) = 'aborted' THEN
        RETURN;
    END IF;
    PERFORM twinspan.conflict(format('a link of database "%s" has changed', current_database()));
END
$$;

-- Notes that the running transaction changes an object: in the first row that nobody else has at the moment. Above
-- READ COMMITTED it does so in all of them, and fails where one has been written behind its snapshot. Every name is in
-- full, for settings of its own would cost more than all the rest.
CREATE OR REPLACE FUNCTION twinspan.touch(object pg_catalog.oid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER AS
$$
DECLARE
    own constant pg_catalog.int8 := pg_catalog.txid_current();
    every constant pg_catalog.bool := pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.!~~) 'read %';
    was pg_catalog.int8;
BEGIN
    FOR n IN 0 .. 3 LOOP
        SELECT t.xid INTO was FROM twinspan.touched t WHERE t.object OPERATOR(pg_catalog.=) $1 AND t.slot OPERATOR(pg_catalog.=) n FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            CONTINUE WHEN NOT twinspan.touch_first($1, n, own);
        ELSIF was OPERATOR(pg_catalog.<>) own THEN
            UPDATE twinspan.touched t SET xid = own WHERE t.object OPERATOR(pg_catalog.=) $1 AND t.slot OPERATOR(pg_catalog.=) n;
        END IF;
        EXIT WHEN NOT every;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.touch_first(object oid, slot int, own bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' SET exit_on_error = off AS
$$
BEGIN
    INSERT INTO twinspan.touched VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;
    RETURN FOUND;
EXCEPTION WHEN lock_not_available THEN
    RETURN false; -- it is somebody else's, who has not ended
END
$$;

-- Notes which tables, schemas and types the running command has changed. What it has made needs no note, for who cannot
-- see that knows it. Above READ COMMITTED the command is refused where one of these, or of those that they stand in a
-- tree with, lie in or are made of, has been changed or made since the snapshot: the rows of a partition that is not
-- seen would not be sent, and an owner that is not seen any more would be asked for what belongs to another.
CREATE OR REPLACE FUNCTION twinspan.touch_changed() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    r record;
    t oid;
    has_children boolean;
    of_type oid;
    changed oid[] := '{}';
    above constant boolean := current_setting('transaction_isolation') NOT LIKE 'read %';
BEGIN
    FOR r IN SELECT DISTINCT coalesce(i.indrelid, g.tgrelid, p.polrelid, s.stxrelid, c.objid) AS object, c.command_tag ~ '^(CREATE (TABLE|SCHEMA|TYPE|DOMAIN)|SELECT INTO)' AND i.indexrelid IS NULL AS made
               FROM pg_event_trigger_ddl_commands() c
               LEFT JOIN pg_index i ON c.classid = 'pg_class'::regclass AND i.indexrelid = c.objid
               LEFT JOIN pg_trigger g ON c.classid = 'pg_trigger'::regclass AND g.oid = c.objid
               LEFT JOIN pg_policy p ON c.classid = 'pg_policy'::regclass AND p.oid = c.objid
               LEFT JOIN pg_statistic_ext s ON c.classid = 'pg_statistic_ext'::regclass AND s.oid = c.objid
              WHERE c.classid IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_type'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_statistic_ext'::regclass)
                AND c.schema_name IS DISTINCT FROM 'pg_temp' LOOP
        IF above THEN
            changed := changed || r.object;
            CONTINUE;
        END IF;
        IF NOT r.made THEN
            PERFORM twinspan.touch(r.object);
        END IF;
        FOR t IN SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = r.object LOOP
            PERFORM twinspan.touch(t);
        END LOOP;
        SELECT c.relhassubclass, c.reloftype INTO has_children, of_type FROM pg_class c WHERE c.oid = r.object;
        IF has_children THEN
            -- What the running transaction, or a later one, has attached.
            FOR t IN SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = r.object AND (i.xmin::text::bigint - (txid_current() & 4294967295) + 4294967296) % 4294967296 < 2147483648 LOOP
                PERFORM twinspan.touch(t);
            END LOOP;
        END IF;
        IF of_type <> 0 THEN
            PERFORM twinspan.touch(of_type);
        END IF;
    END LOOP;
    IF above THEN
        PERFORM twinspan.touch_around(changed);
    END IF;
END
$$;

-- Fails where one of some objects, or what they stand in a tree with, lie in or are made of, has been changed or made
-- since the snapshot.
CREATE OR REPLACE FUNCTION twinspan.touch_around(changed oid[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET exit_on_error = off AS
$$
DECLARE
    tree oid[];
BEGIN
    WITH RECURSIVE up (oid) AS (SELECT unnest(changed) UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid),
    down (oid) AS (SELECT unnest(changed) UNION SELECT i.inhrelid FROM down JOIN pg_inherits i ON i.inhparent = down.oid)
    SELECT array_agg(t.oid) INTO tree FROM (SELECT u.oid FROM up u UNION SELECT d.oid FROM down d) t;
    PERFORM twinspan.touch(x.object) FROM (
        SELECT unnest(tree) AS object
        UNION SELECT d.refobjid FROM pg_depend d
               WHERE d.classid = 'pg_class'::regclass AND d.objid = ANY (tree) AND d.refobjid >= 16384 AND d.refclassid IN ('pg_namespace'::regclass, 'pg_type'::regclass)) x;
    -- What is there and cannot be seen: tables, their columns, where they lie, and of which types.
    IF EXISTS (SELECT FROM unnest(tree) t WHERE pg_table_is_visible(t) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t))
        OR EXISTS (SELECT FROM pg_class c WHERE c.oid = ANY (tree)
                      AND (c.relnatts <> (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) OR NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid = c.relnamespace)))
        OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = ANY (tree) AND a.attnum > 0 AND NOT a.attisdropped AND NOT EXISTS (SELECT FROM pg_type y WHERE y.oid = a.atttypid)) THEN
        PERFORM twinspan.conflict('what the command is about has been made');
    END IF;
EXCEPTION WHEN serialization_failure THEN
    PERFORM twinspan.conflict('what the command is about has been changed');
END
$$;

-- What a superuser did is run by the twin as such, where that was agreed to: a role that is none any more is not to pass
-- for one because its transaction began before. The lock is given up at once.
CREATE OR REPLACE FUNCTION twinspan.refuse_former_superuser(role text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET exit_on_error = off AS
$$
BEGIN
    IF current_setting('transaction_isolation') LIKE 'read %' OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role AND r.rolsuper) THEN
        RETURN;
    END IF;
    PERFORM FROM pg_authid r WHERE r.rolname = role FOR SHARE NOWAIT;
    RAISE EXCEPTION USING ERRCODE = 'TW000', MESSAGE = 'nothing has changed';
EXCEPTION
    WHEN SQLSTATE 'TW000' OR lock_not_available THEN
        NULL;
    WHEN serialization_failure THEN
        PERFORM twinspan.conflict(format('role "%s" has been changed', role));
END
$$;
