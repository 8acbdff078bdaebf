-- What keeps every table updatable while it is published: a replica identity that the server
-- takes, and by which the twin finds the row.

DO $columns$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = 'twinspan.identity'::pg_catalog.regclass AND attname = 'chosen') THEN
        ALTER TABLE twinspan.identity ADD COLUMN chosen "char", ADD COLUMN chosen_index name;
    END IF;
END $columns$;

-- Unique indexes that tell rows apart in the stream: valid, not deferrable, of columns that
-- are never NULL and all sent. Generated columns are not, but for stored ones from version 18 on, where
-- our publications ask for them. Without a search_path of its own it is part of the queries that use it.
CREATE OR REPLACE FUNCTION twinspan.telling(t oid) RETURNS TABLE (index name, is_primary boolean, chosen boolean, owned boolean)
    LANGUAGE sql STABLE AS
$$
    SELECT n.relname, x.indisprimary, x.indisreplident, EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u'))
      FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class n ON n.oid = x.indexrelid
     -- By a key WITHOUT OVERLAPS, which is an index of GiST, the twin looks nothing up.
     WHERE x.indrelid = t AND x.indisunique AND NOT x.indisexclusion AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL
       AND NOT EXISTS (SELECT FROM pg_catalog.unnest(x.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, n) JOIN pg_catalog.pg_attribute a ON a.attrelid = t AND a.attnum = k.attnum
                        WHERE k.n <= coalesce((pg_catalog.to_jsonb(x)->>'indnkeyatts')::pg_catalog.int4, x.indnatts)
                          AND (NOT a.attnotnull OR coalesce(pg_catalog.to_jsonb(a)->>'attgenerated', '')
                               NOT IN ('', CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 180000 THEN 's' ELSE '' END)))
$$;

-- What the server says against UPDATE and DELETE of a table; NULL if nothing. It decides when
-- a statement begins (execReplication.c, CheckCmdReplicaIdentity), and EXPLAIN begins one without firing a
-- trigger. Where planning could run functions that the owner has put there, it is done with the owner's rights. What
-- is looked at must be what is planned: the table is locked against whatever could put code there, and the row of its
-- schema against a new name, for a schema can be renamed while its tables are locked. Where that cannot be had at
-- once, or by this role, or where queries see an old snapshot while the planner sees what has come since (all levels
-- above READ COMMITTED), the owner's rights are taken without a look.
-- What cannot be tried is not spoken against: a table with rules, where other tables would be locked, one that
-- somebody has locked, and what the owner may not write himself. Everything is rolled back, locks included.
CREATE OR REPLACE FUNCTION twinspan.refusal(t oid) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET row_security = on SET lock_timeout = '100ms' SET exit_on_error = off AS
$$
DECLARE
    trier text := format('twinspan.trier_%s', pg_backend_pid());
    r record;
    name text;
    fixed boolean := false; -- its name names it, and nothing can be put there
    tries text[];
    try text;
    said text;
    detail text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relnamespace AS schema INTO r
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = t AND c.relkind = 'r';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    name := r.name;
    BEGIN
        BEGIN
            IF current_setting('transaction_isolation') LIKE 'read %' THEN
                PERFORM FROM pg_namespace n WHERE n.oid = r.schema FOR SHARE NOWAIT;
                EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE NOWAIT', name);
                fixed := coalesce(to_regclass(name) = t, false);
            ELSE
                -- Fails where what is seen of it, its owner above all, is not so any more.
                PERFORM FROM pg_class c WHERE c.oid = t FOR SHARE NOWAIT;
            END IF;
        EXCEPTION WHEN lock_not_available OR insufficient_privilege OR undefined_table OR wrong_object_type OR invalid_schema_name THEN
            NULL;
        END;
        SELECT pg_get_userbyid(c.relowner) AS owner, EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = t) AS ruled,
               current_setting('transaction_isolation') NOT LIKE 'read %' OR NOT o.rolsuper AND (NOT fixed OR c.relispartition OR EXISTS (SELECT FROM pg_index x WHERE x.indrelid = t AND (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL))
                   OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = t AND k.contype IN ('c', 'x')) OR EXISTS (SELECT FROM pg_statistic_ext s WHERE s.stxrelid = t)
                   OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t AND coalesce(to_jsonb(a)->>'attgenerated', '') <> '')) AS code,
               (SELECT format('%I', a.attname) FROM pg_attribute a WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped
                    AND coalesce(to_jsonb(a)->>'attgenerated', '') = '' AND a.attidentity <> 'a' ORDER BY a.attnum LIMIT 1) AS column
          INTO r
          FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
         WHERE c.oid = t;
        IF NOT FOUND OR r.ruled THEN
            RAISE EXCEPTION USING ERRCODE = 'TW000', MESSAGE = 'not tried';
        END IF;
        tries := ARRAY[format('EXPLAIN DELETE FROM ONLY %s WHERE false', name)];
        IF r.column IS NOT NULL THEN
            tries := tries || format('EXPLAIN UPDATE ONLY %s SET %s = %s WHERE false', name, r.column, r.column);
        END IF;
        IF r.code THEN
            -- It is called once: code of its owner can make it SECURITY INVOKER.
            PERFORM twinspan.run_unseen(format('CREATE FUNCTION %s(tries text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS %L',
                trier, 'DECLARE try pg_catalog.text; BEGIN FOREACH try IN ARRAY tries LOOP EXECUTE try; END LOOP; END'));
            PERFORM twinspan.run_unseen(format('ALTER FUNCTION %s(text[]) OWNER TO %I', trier, r.owner));
            EXECUTE format('SELECT %s(%L)', trier, tries);
        ELSE
            FOREACH try IN ARRAY tries LOOP
                EXECUTE try;
            END LOOP;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'TW000', MESSAGE = 'tried';
    EXCEPTION
        WHEN SQLSTATE 'TW000' THEN
            RETURN NULL;
        WHEN object_not_in_prerequisite_state OR invalid_column_reference THEN
            GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
            RETURN concat_ws(': ', said, nullif(detail, ''));
        WHEN deadlock_detected OR serialization_failure THEN
            RAISE;
        WHEN OTHERS THEN
            RETURN NULL;
    END;
END
$$;

-- Whether a publication of somebody else's holds a part of the table's columns or rows: it may be what the
-- server refuses UPDATE and DELETE for, with a link or without. Generated columns are another reason.
CREATE OR REPLACE FUNCTION twinspan.published_in_part(t oid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
    WITH RECURSIVE up (oid) AS (SELECT t UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid)
    SELECT EXISTS (SELECT FROM pg_publication_rel p JOIN up ON up.oid = p.prrelid WHERE coalesce(to_jsonb(p)->>'prattrs', to_jsonb(p)->>'prqual') IS NOT NULL)
       AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(to_jsonb(a)->>'attgenerated', '') <> '')
$$;

-- Gives a table an identity with which the server takes UPDATE and DELETE, unless it has one:
-- its key, FULL, another index that tells rows apart. The index comes last, for one that is an identity cannot be
-- dropped concurrently, nor can its columns become nullable. What the table had is noted, and comes back when a
-- key is there again. Where nothing does, as for a table without a key that has a virtual generated column, the table
-- is left as it was, with a warning; a command that takes UPDATE and DELETE from a table that had them is refused.
-- Where it is somebody else's publication that stands against all, the table gets what it would have without that.
CREATE OR REPLACE FUNCTION twinspan.keep_identity(t oid, refuse boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET exit_on_error = off AS
$$
DECLARE
    r record;
    keyed boolean;  -- by a primary key
    key_index name; -- the index that is the identity, if it tells rows apart
    indexes name[]; -- others that do, best first
    choice record;
    was "char";
    was_index name;
    now "char";
    now_index name;
    said text;
    command text;
    -- A role that may make no event triggers has nobody else's that fire at what it does.
    seen bool := to_regprocedure('twinspan.run_unseen(text)') IS NULL;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relreplident AS now, i.oid IS NOT NULL AS noted, i.was, i.was_index,
           coalesce(i.chosen, 'f') AS chosen, i.chosen_index,
           (SELECT relname FROM pg_class x JOIN pg_index y ON y.indexrelid = x.oid WHERE y.indrelid = c.oid AND y.indisreplident) AS index
      INTO r
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN twinspan.identity i ON i.oid = c.oid
     WHERE c.oid = t AND c.relkind = 'r' AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('twinspan', 'pg_catalog', 'information_schema');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    now := r.now;
    now_index := r.index;
    DELETE FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'wish' AND n.object = t::bigint;
    IF r.noted AND NOT FOUND AND r.now = r.chosen AND (r.now <> 'i' OR r.index IS NULL OR r.index = r.chosen_index) THEN
        was := r.was;
        was_index := r.was_index;
    ELSE
        -- What may be noted is of an identity that somebody has changed since, or chosen himself: this one is theirs.
        was := now;
        was_index := now_index;
    END IF;
    SELECT coalesce(bool_or(k.is_primary), false), min(k.index) FILTER (WHERE k.chosen),
           coalesce(array_agg(k.index ORDER BY NOT k.owned, k.index) FILTER (WHERE NOT k.is_primary AND NOT (r.now = 'i' AND k.chosen)), '{}')
      INTO keyed, key_index, indexes
      FROM twinspan.telling(t) k;
    -- The event trigger that looks after identities passes these commands over.
    PERFORM twinspan.take_note('keeping', t::bigint);
    BEGIN
        FOR choice IN
            SELECT v.identity, v.index, v.rank, 0 AS n
              FROM (VALUES ('d'::"char", NULL::name, 1, keyed AND (r.now = 'd' OR was = 'd')),
                           ('i', key_index, 2, r.now = 'i' AND key_index IS NOT NULL),
                           ('f', NULL, 3, r.now = 'f'),
                           ('d', NULL, 4, keyed AND r.now <> 'd' AND was <> 'd'),
                           ('f', NULL, 5, r.now <> 'f'),
                           (CASE WHEN keyed THEN 'd'::"char" ELSE 'f' END, NULL, 7, true)) v (identity, index, rank, possible)
             WHERE v.possible
            UNION ALL SELECT 'i', o.index, 6, o.n FROM unnest(indexes) WITH ORDINALITY o (index, n)
             ORDER BY rank, n
        LOOP
            EXIT WHEN choice.rank = 7 AND NOT twinspan.published_in_part(t);
            IF choice.identity <> now OR choice.identity = 'i' AND choice.index IS DISTINCT FROM now_index THEN
                command := format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', r.name,
                    CASE choice.identity WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL' ELSE format('USING INDEX %I', choice.index) END);
                IF seen THEN
                    PERFORM twinspan.run_own(command);
                ELSE
                    PERFORM twinspan.run_unseen(command);
                END IF;
                now := choice.identity;
                now_index := choice.index;
            END IF;
            said := CASE WHEN choice.rank < 7 THEN twinspan.refusal(t) END;
            EXIT WHEN said IS NULL;
        END LOOP;
        IF said IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'TW000', MESSAGE = 'none';
        END IF;
    EXCEPTION WHEN SQLSTATE 'TW000' THEN
        now := '-';
    END;
    PERFORM twinspan.spend_note('keeping');
    IF now = was AND (now <> 'i' OR now_index = was_index) THEN
        DELETE FROM twinspan.identity WHERE oid = t;
        RETURN;
    END IF;
    IF now = '-' AND NOT (r.noted AND r.chosen = '-') THEN
        IF refuse THEN
            RAISE EXCEPTION USING
                ERRCODE = 'feature_not_supported',
                MESSAGE = format('the server would refuse UPDATE and DELETE of the linked table %s, whatever its replica identity (%s)', r.name, said),
                DETAIL = format('Twinspan code: %s', 'ddl_not_updatable'),
                HINT = 'Give the table a primary key first; or make its generated columns STORED.';
        END IF;
        RAISE WARNING USING
            MESSAGE = format('the server refuses UPDATE and DELETE of the linked table %s, whatever its replica identity (%s)', r.name, said),
            DETAIL = format('Twinspan code: %s', 'table_not_updatable'),
            HINT = 'Give the table a primary key; or make its generated columns STORED.';
    END IF;
    INSERT INTO twinspan.identity (oid, was, was_index, chosen, chosen_index) VALUES (t, was, was_index, now, now_index)
        ON CONFLICT (oid) DO UPDATE SET was = excluded.was, was_index = excluded.was_index, chosen = excluded.chosen, chosen_index = excluded.chosen_index;
END
$$;

-- Those of some tables, of all for NULL, whose identity does not do as far as the catalogs tell.
CREATE OR REPLACE FUNCTION twinspan.without_identity(tables oid[]) RETURNS TABLE (oid oid, name text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    -- By their numbers in any case: few tables of very many are looked up by the index.
    RETURN QUERY SELECT c.oid, format('%I.%I', n.nspname, c.relname)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY (coalesce(tables, ARRAY(SELECT r.oid FROM pg_class r WHERE r.relkind = 'r'))) AND c.relkind = 'r' AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('twinspan', 'pg_catalog', 'information_schema')
       AND CASE c.relreplident WHEN 'n' THEN true
                WHEN 'f' THEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND to_jsonb(a)->>'attgenerated' = 'v')
                ELSE NOT EXISTS (SELECT FROM twinspan.telling(c.oid) k WHERE CASE c.relreplident WHEN 'd' THEN k.is_primary ELSE k.chosen END) END;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.on_ddl_end() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp /*planner*/ AS
$$
BEGIN
    -- Of temporary objects there may be very many.
    IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c WHERE c.schema_name IS DISTINCT FROM 'pg_temp') OR twinspan.copied() THEN
        RETURN;
    END IF;
    PERFORM twinspan.refuse_stale();
    PERFORM twinspan.keep_identity(c.objid, c.command_tag NOT LIKE 'CREATE %'), twinspan.watch_truncate(c.objid)
       FROM pg_event_trigger_ddl_commands() c
      WHERE c.classid = 'pg_class'::regclass AND c.object_type = 'table' AND c.schema_name IS DISTINCT FROM 'pg_temp'
        AND NOT EXISTS (SELECT FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'keeping' AND n.object = c.objid::bigint);
    -- A table that no event trigger saw made may be attached before anything else names it. (While a link is being made, twinspan.written is not there yet.)
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c JOIN pg_class p ON c.classid = 'pg_class'::regclass AND p.oid = c.objid AND p.relkind = 'p' WHERE c.command_tag = 'ALTER TABLE') THEN
        PERFORM twinspan.keep_identity(k.oid, false), twinspan.watch_truncate(k.oid)
           FROM pg_event_trigger_ddl_commands() c JOIN pg_inherits h ON c.classid = 'pg_class'::regclass AND h.inhparent = c.objid AND twinspan.written(h.xmin, h.cmin, -1)
           JOIN pg_class k ON k.oid = h.inhrelid AND k.relreplident = 'd'
          WHERE NOT EXISTS (SELECT FROM twinspan.identity i WHERE i.oid = k.oid);
    END IF;
    -- Perhaps it is what a table lacked for which nothing did.
    PERFORM twinspan.keep_identity(i.oid, false)
       FROM pg_event_trigger_ddl_commands() c JOIN pg_index x ON x.indexrelid = c.objid AND x.indisunique JOIN twinspan.identity i ON i.oid = x.indrelid AND i.chosen = '-'
      WHERE c.classid = 'pg_class'::regclass AND c.object_type = 'index';
END
$$;

-- An index or a column that is dropped can take a table's identity with it, and
-- the command does not name the table. But it has locked it: only such tables
-- are looked at, so that nobody's command waits for a table it has not to do with.
CREATE OR REPLACE FUNCTION twinspan.on_drop() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp /*planner for many*/ AS
$$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) OR twinspan.copied() THEN
        RETURN;
    END IF;
    PERFORM twinspan.refuse_stale();
    IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
        PERFORM twinspan.touch_around((SELECT array_agg(DISTINCT l.relation) FROM pg_locks l
            WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.granted AND l.relation >= 16384
              AND l.mode IN ('AccessExclusiveLock', 'ShareUpdateExclusiveLock') AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())));
    END IF;
    DELETE FROM twinspan.touched t WHERE t.ctid = ANY (ARRAY(SELECT x.ctid FROM twinspan.touched x
        JOIN pg_event_trigger_dropped_objects() d ON d.objid = x.object AND d.objsubid = 0 FOR UPDATE OF x SKIP LOCKED));
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                WHERE NOT d.is_temporary AND d.object_type IN ('index', 'table constraint', 'table column')) THEN
        PERFORM twinspan.keep_identity(w.oid, true)
           FROM twinspan.without_identity((SELECT array_agg(DISTINCT l.relation) FROM pg_locks l
                 WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.granted
                   AND l.mode IN ('AccessExclusiveLock', 'ShareUpdateExclusiveLock')
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))) w;
    END IF;
    DELETE FROM twinspan.identity i
     USING pg_event_trigger_dropped_objects() d
     WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.objid = i.oid;
END
$$;
