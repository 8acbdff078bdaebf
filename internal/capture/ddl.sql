-- How schema changes get into the stream (docs/design/0006-schema-changes.md).
-- Made again at each link create. Names of event triggers begin with "!" so that
-- they fire before those of users, whose own commands then come after.
-- What holds a query is a PL/pgSQL function: it keeps its plan for the session, where an SQL function with settings of
-- its own is read and planned at each call.

-- The extensions that the twin's server has, as its agent told.
CREATE TABLE IF NOT EXISTS twinspan.twin_extension (
    link uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    name text NOT NULL,
    PRIMARY KEY (link, name)
);

-- What was created since a link's first copy began, which the copy therefore does not
-- hold: it comes with the stream, and so may what is done to it. The object 0 says that
-- the copy's snapshot has been taken (Source.CopyBegan).
CREATE TABLE IF NOT EXISTS twinspan.made_since (
    link uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    class oid NOT NULL,
    object oid NOT NULL,
    PRIMARY KEY (link, class, object)
);

-- The caller's role and settings, which every other function here hides: it alone
-- runs with the caller's rights, and so names everything in full. It hands them on in a setting, which
-- anybody can set: but the triggers that read it are the next to fire, and nobody's code runs in
-- between. It is no authority for anything else, and what was in it before is overwritten.
CREATE OR REPLACE FUNCTION twinspan.on_ddl_caller() RETURNS event_trigger
    LANGUAGE plpgsql AS
$$
DECLARE
    temporary pg_catalog.bool;
BEGIN
    IF TG_EVENT OPERATOR(pg_catalog.<>) 'sql_drop' AND TG_TAG OPERATOR(pg_catalog.~~) 'DROP %' AND TG_TAG OPERATOR(pg_catalog.<>) 'DROP OWNED' THEN
        RETURN; -- it has been seen to, and nobody asks
    END IF;
    -- What is about temporary objects alone is over here: there may be very many.
    IF TG_EVENT OPERATOR(pg_catalog.=) 'sql_drop' THEN
        SELECT pg_catalog.bool_and(x.is_temporary) INTO temporary FROM pg_catalog.pg_event_trigger_dropped_objects() x;
    ELSE
        SELECT pg_catalog.bool_and(x.schema_name IS NOT NULL AND x.schema_name OPERATOR(pg_catalog.=) 'pg_temp') INTO temporary FROM pg_catalog.pg_event_trigger_ddl_commands() x;
    END IF;
    IF temporary THEN
        PERFORM pg_catalog.set_config('twinspan.caller', '', true);
        RETURN;
    END IF;
    PERFORM pg_catalog.set_config('twinspan.caller', (pg_catalog.jsonb_build_object(
        'role', current_user, 'session', session_user,
        'search_path', pg_catalog.current_setting('search_path'),
        'standard_conforming_strings', pg_catalog.current_setting('standard_conforming_strings'),
        'lc_messages', pg_catalog.current_setting('lc_messages'),
        'session_replication_role', pg_catalog.current_setting('session_replication_role'),
        'DateStyle', pg_catalog.current_setting('DateStyle'),
        'IntervalStyle', pg_catalog.current_setting('IntervalStyle'),
        'TimeZone', pg_catalog.current_setting('TimeZone'),
        'extra_float_digits', pg_catalog.current_setting('extra_float_digits'),
        'bytea_output', pg_catalog.current_setting('bytea_output'),
        'xmlbinary', pg_catalog.current_setting('xmlbinary'),
        'lc_monetary', pg_catalog.current_setting('lc_monetary'),
        'lc_numeric', pg_catalog.current_setting('lc_numeric'),
        'lc_time', pg_catalog.current_setting('lc_time'),
        'xmloption', pg_catalog.current_setting('xmloption'),
        'array_nulls', pg_catalog.current_setting('array_nulls'),
        'transform_null_equals', pg_catalog.current_setting('transform_null_equals'),
        'default_text_search_config', pg_catalog.current_setting('default_text_search_config'),
        'default_table_access_method', pg_catalog.current_setting('default_table_access_method', true),
        'default_toast_compression', pg_catalog.current_setting('default_toast_compression', true))
        OPERATOR(pg_catalog.||) pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(/*planner of the caller*/)))::pg_catalog.text, true);
END
$$;

-- Text as bytes of the database's encoding, in base64: JSON is read as UTF-8,
-- which they need not be.
CREATE OR REPLACE FUNCTION twinspan.raw(t text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN translate(encode(convert_to(t, getdatabaseencoding()::name), 'base64'), E'\n', '');
END
$$;

-- Refuses tables and the like of others in the schema twinspan: nothing there crosses, and it is
-- dropped with the last link. A role named twinspan makes its tables there ("$user" in
-- search_path). Whoever has no right in the schema does not come so far; who has one may say
-- that he means it, as agents do.
CREATE OR REPLACE FUNCTION twinspan.refuse_here(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    made text;
BEGIN
    -- Triggers of these names do not cross, for they are the links' own, and call their functions.
    IF tag IN ('CREATE TRIGGER', 'ALTER TRIGGER') THEN
        SELECT x.object_identity INTO made FROM pg_event_trigger_ddl_commands() x JOIN pg_trigger g ON x.classid = 'pg_trigger'::regclass AND g.oid = x.objid
          JOIN pg_proc p ON p.oid = g.tgfoid AND p.pronamespace <> 'twinspan'::regnamespace WHERE g.tgname ~ '^twinspan_(truncate|gate)(_\d+)?$' LIMIT 1;
        IF FOUND THEN
            PERFORM twinspan.refuse_ddl(tag, 'schema_in_use', format('trigger %s has a name of the links'' own triggers, which do not cross', made), 'Choose another name.');
        END IF;
    END IF;
    IF tag NOT LIKE 'CREATE %' AND tag <> 'SELECT INTO' OR current_setting('twinspan.pass_gate', true) = 'on' THEN
        RETURN;
    END IF;
    SELECT x.object_identity INTO made FROM pg_event_trigger_ddl_commands() x
     WHERE x.schema_name = 'twinspan' AND x.objsubid = 0 AND x.object_type IN ('table', 'view', 'materialized view', 'foreign table', 'sequence', 'type') ORDER BY x.objid LIMIT 1;
    IF FOUND THEN
        PERFORM twinspan.refuse_ddl(tag, 'schema_in_use', format('%s would lie in the schema of its links, which does not cross and is dropped with them', made),
            'Name another schema: CREATE TABLE public.name ...; for the whole session: SET search_path = public. A role named twinspan has that schema first: ALTER ROLE twinspan SET search_path = public.');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION twinspan.refuse_ddl(tag text, code text, reason text, remedy text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    link text;
BEGIN
    SELECT name INTO link FROM twinspan.link WHERE role = 'primary' ORDER BY name LIMIT 1;
    RAISE EXCEPTION USING
        ERRCODE = 'feature_not_supported',
        MESSAGE = format('cannot execute %s: database "%s" is the primary of link "%s", and %s', tag, current_database(), link, reason),
        DETAIL = format('Twinspan code: %s', code),
        HINT = remedy;
END
$$;

-- Whether an expression of the catalogs gives the same everywhere and always: it calls immutable
-- functions alone, and its constants are of types that read a text in one way. A constant of
-- another may have been 'now', or read by the session's settings.
CREATE OR REPLACE FUNCTION twinspan.immutable(expression pg_node_tree) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
    SELECT expression IS NULL OR expression::text !~ '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR|COERCEVIAIO|XMLEXPR|JSON[A-Z]+) '
       AND NOT EXISTS (SELECT FROM regexp_matches(expression::text, ':(?:funcid|opfuncid|elemfuncid) (\d+)', 'g') f
                         LEFT JOIN pg_proc p ON p.oid = f[1]::oid WHERE p.provolatile IS DISTINCT FROM 'i'
                            -- Above READ COMMITTED a function is seen as it was at the snapshot, and runs as it is now.
                            OR p.oid >= 16384 AND current_setting('transaction_isolation') NOT LIKE 'read %')
       AND NOT EXISTS (SELECT FROM regexp_matches(expression::text, ':consttype (\d+)', 'g') f
                         JOIN pg_type t ON t.oid = f[1]::oid JOIN pg_proc p ON p.oid = t.typinput WHERE p.provolatile <> 'i')
$$;

-- Sends every row of a table anew to twins whose agents are older than format 2: between
-- the two signals an UPDATE carries a whole row, and means that this row is there.
CREATE OR REPLACE FUNCTION twinspan.resend(t oid, tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET session_replication_role = replica AS
$$
DECLARE
    r record;
    target text;
BEGIN
    SELECT n.nspname, c.relname, c.relreplident, format('%I.%I', n.nspname, c.relname) AS name,
           (SELECT format('%I', x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident) AS index
      INTO r FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = t AND c.relkind = 'r' AND c.relpersistence = 'p';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT format('%I', a.attname) INTO target FROM pg_attribute a
     WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped
       AND coalesce(to_jsonb(a)->>'attgenerated', '') = '' AND coalesce(to_jsonb(a)->>'attidentity', '') <> 'a'
     ORDER BY a.attlen < 0, a.attnum LIMIT 1;
    IF target IS NULL THEN
        PERFORM twinspan.refuse_ddl(tag, 'ddl_rows_unsent', format('the new values of table %s differ from server to server, and it has no column by which they could be sent', r.name),
            'Add the column without the default, set its values with UPDATE, then set the default.');
    END IF;
    PERFORM twinspan.say('resend', jsonb_build_object('schema', twinspan.raw(r.nspname), 'table', twinspan.raw(r.relname)));
    IF r.relreplident <> 'f' THEN
        PERFORM twinspan.run_unseen(format('ALTER TABLE %s REPLICA IDENTITY FULL', r.name));
    END IF;
    EXECUTE format('UPDATE ONLY %s SET %s = %s', r.name, target, target);
    IF r.relreplident <> 'f' THEN
        PERFORM twinspan.run_unseen(format('ALTER TABLE %s REPLICA IDENTITY %s', r.name,
            CASE r.relreplident WHEN 'n' THEN 'NOTHING' WHEN 'i' THEN 'USING INDEX ' || r.index ELSE 'DEFAULT' END));
    END IF;
    PERFORM twinspan.say('resent', jsonb_build_object('schema', twinspan.raw(r.nspname), 'table', twinspan.raw(r.relname)));
END
$$;

-- What a command has dropped is known only while this trigger runs: DROP is written from it, object
-- by object, whatever the client's text was. What else drops something has its text sent at its end.
CREATE OR REPLACE FUNCTION twinspan.capture_drop(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lc_messages = 'C' SET standard_conforming_strings = on /*planner for many*/ AS
$$
DECLARE
    d record;
    caller json;
    stack text;
BEGIN
    -- A column of one named object that is of the type of another counts as named, too (dependency.c,
    -- object_address_present_add_ref). No command that DROP is written for drops a part of something.
    SELECT array_agg(x.object_identity ORDER BY x.objid) FILTER (WHERE x.original AND x.objsubid = 0) AS objects,
           -- An index or a default goes with its table, and with CASCADE with a function that it calls: which it was
           -- is not told.
           bool_or(x.normal AND NOT x.original AND CASE x.object_type WHEN 'toast table' THEN false
               WHEN 'index' THEN tag NOT IN ('DROP TABLE', 'DROP FOREIGN TABLE', 'DROP MATERIALIZED VIEW', 'DROP INDEX')
               WHEN 'default value' THEN (x.address_names[1], x.address_names[2]) NOT IN (SELECT o.schema_name, o.object_name
                   FROM pg_event_trigger_dropped_objects() o WHERE o.object_type IN ('table', 'foreign table'))
               ELSE true END
               AND NOT (x.object_type = 'rule' AND x.object_identity LIKE '"_RETURN" on %')) AS cascades,
           string_agg(CASE tag
               WHEN 'DROP USER MAPPING' THEN format('FOR %s SERVER %I', CASE x.address_names[1] WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(x.address_names[1]) END, x.address_args[1])
               WHEN 'DROP TRANSFORM' THEN format('FOR %s LANGUAGE %I', x.address_names[1], x.address_args[1])
               ELSE x.object_identity END, ', ' ORDER BY x.objid) FILTER (WHERE x.original AND x.objsubid = 0) AS list,
           -- Whether the first copy holds nothing of what was named, and of what depended on it.
           bool_and(twinspan.made_since_copy(x.classid, x.objid)) FILTER (WHERE x.original) AS named_since,
           bool_and(twinspan.made_since_copy(x.classid, x.objid)) FILTER (WHERE x.normal AND NOT x.original
               AND NOT (x.object_type = 'rule' AND x.object_identity LIKE '"_RETURN" on %')) AS other_since
      INTO d FROM pg_event_trigger_dropped_objects() x
     WHERE NOT x.is_temporary AND NOT coalesce(cardinality(x.address_names) > 1 AND x.address_names[1] ~ '^pg_temp(_\d+)?$', false) AND NOT (x.original AND twinspan.own(x.object_type, x.schema_name, x.object_identity));
    IF EXISTS (SELECT FROM twinspan.made_since WHERE object <> 0) THEN
        DELETE FROM twinspan.made_since m USING pg_event_trigger_dropped_objects() x WHERE m.class = x.classid AND m.object = x.objid AND x.objsubid = 0;
    END IF;
    DELETE FROM twinspan.filled f USING pg_event_trigger_dropped_objects() x
     WHERE x.classid = 'pg_class'::regclass AND f.object = x.objid AND x.objsubid IN (0, f.number);
    IF twinspan.noted('extension') THEN
        RETURN;
    ELSIF tag NOT LIKE 'DROP %' OR tag = 'DROP OWNED' THEN
        IF NOT coalesce(d.other_since, true) OR tag = 'DROP OWNED' AND NOT coalesce(d.named_since, true) THEN
            PERFORM twinspan.take_note('dropped');
        END IF;
        RETURN;
    ELSIF d.list IS NULL OR tag IN ('DROP PUBLICATION', 'DROP SUBSCRIPTION') THEN
        RETURN;
    END IF;
    PERFORM twinspan.keep_names(ARRAY(SELECT DISTINCT x.schema_name::name FROM pg_event_trigger_dropped_objects() x WHERE x.schema_name IS NOT NULL));
    caller := current_setting('twinspan.caller', true)::json;
    GET DIAGNOSTICS stack = PG_CONTEXT;
    -- This function, the statement that calls it, and the trigger.
    PERFORM twinspan.note_called(regexp_replace(stack || E'\n', '^([^\n]*\n){3}', ''));
    PERFORM twinspan.refuse_while_seeding(tag, '', NOT coalesce(d.named_since, true) OR NOT coalesce(d.other_since, true));
    PERFORM twinspan.say_ddl(tag, format('%s IF EXISTS %s%s', CASE tag WHEN 'DROP AGGREGATE' THEN 'DROP ROUTINE' ELSE tag END, d.list,
            CASE WHEN d.cascades AND tag <> 'DROP USER MAPPING' THEN ' CASCADE' ELSE '' END), true, caller, d.objects, '{}', '{}');
END
$$;

-- Whether an object is none of those that a copy under way holds.
CREATE OR REPLACE FUNCTION twinspan.made_since_copy(class oid, object oid) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (SELECT NOT EXISTS (SELECT FROM twinspan.link k WHERE k.role = 'primary' AND NOT k.seeded AND NOT k.deleting
        AND NOT EXISTS (SELECT FROM twinspan.made_since m WHERE m.link = k.id AND m.class = $1 AND m.object = $2)));
END
$$;

CREATE OR REPLACE FUNCTION twinspan.own(object_type text, schema_name text, identity text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    -- What is in pg_toast belongs to tables, and has other names there.
    RETURN coalesce(schema_name IN ('twinspan', 'pg_toast'), false) OR coalesce(identity ~ '(^| on )twinspan(\.|$)', false)
        OR object_type IN ('publication', 'publication relation', 'publication namespace', 'subscription', 'event trigger')
        OR object_type = 'trigger' AND identity ~ '^twinspan_(truncate|gate)(_\d+)? on '
        -- Large objects come in passes, with their owners, rights and comments.
        OR lower(object_type) = 'large object';
END
$$;

CREATE OR REPLACE FUNCTION twinspan.on_ddl_rewrite() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on /*planner*/ AS
$$
DECLARE
    began constant bigint := twinspan.command_began();
BEGIN
    PERFORM twinspan.take_note('rewritten', pg_event_trigger_table_rewrite_oid()::bigint, pg_event_trigger_table_rewrite_reason()::bigint);
    -- A command may rewrite several tables: it counts from the first.
    IF began IS NOT NULL AND NOT EXISTS (SELECT FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current() AND n.kind = 'changed' AND n.object = began) THEN
        PERFORM twinspan.take_note('changed', began, twinspan.rows_changed());
    END IF;
END
$$;

-- Where in the log the command that runs began, null if nobody noted it (on_ddl_start).
CREATE OR REPLACE FUNCTION twinspan.command_began() RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN nullif(split_part(current_setting('twinspan.began', true), ' ', 1), '')::pg_lsn - '0/0'::pg_lsn;
END
$$;

-- The commands of an extension's script are part of the command on the extension. A
-- script may itself hold commands on extensions. On what a GRANT or REVOKE was is seen by where
-- it began (twinspan.granted), for the sake of temporary objects.
CREATE OR REPLACE FUNCTION twinspan.note_start(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on /*planner*/ AS
$$
BEGIN
    IF tag LIKE '% EXTENSION' THEN
        PERFORM twinspan.take_note('extension'), twinspan.take_note('script');
    ELSIF tag IN ('GRANT', 'REVOKE') THEN
        IF pg_my_temp_schema() <> 0 THEN
            PERFORM twinspan.take_note('grant');
        END IF;
    ELSE
        PERFORM twinspan.take_note('changed', twinspan.command_began(), twinspan.rows_changed());
    END IF;
END
$$;

-- How many changes of rows that cross this transaction has made: of the tables that it has locked for them, for there
-- may be very many others.
CREATE OR REPLACE FUNCTION twinspan.rows_changed() RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid)), 0)
              FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
             WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid = pg_backend_pid() AND l.relation >= 16384
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
               AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relnamespace <> 'twinspan'::regnamespace);
END
$$;

-- Where a command begins that may call functions, in the log: what a command within it says lies behind that. In front of where
-- those began within which it is; on_ddl_capture takes it away. Without settings of its own, which cost more than all else: so
-- everything is named in full. The settings in which this is handed on are worth nothing to others: whoever forges them is himself not refused what his twin cannot follow.
CREATE OR REPLACE FUNCTION twinspan.on_ddl_start() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER AS
$$
DECLARE
    stack pg_catalog.text;
    query pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('twinspan.began', pg_catalog.concat_ws(' ', pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.current_setting('twinspan.began', true)), true);
    -- Most ALTER TABLE call nothing, or say that they rewrite a table; most CREATE INDEX have columns alone. (No backslash: sessions read it in two ways.)
    IF TG_TAG OPERATOR(pg_catalog.=) ANY ('{ALTER TABLE,CREATE INDEX}') THEN
        GET DIAGNOSTICS stack = PG_CONTEXT;
        IF pg_catalog.strpos(stack, E'\n') OPERATOR(pg_catalog.=) 0 THEN -- the client's own, and none of a function's
            query := pg_catalog.current_query();
        END IF;
    END IF;
    IF query IS NULL OR pg_catalog.octet_length(query) OPERATOR(pg_catalog.>) 10000
        OR query OPERATOR(pg_catalog.~*) (CASE WHEN TG_TAG OPERATOR(pg_catalog.=) 'CREATE INDEX' THEN '[(].*[(]|where' ELSE '[[:<:]](check|constraint|exclude|unique|primary|attach|validate|type)[[:>:]]' END) THEN
        PERFORM twinspan.note_start(TG_TAG);
    END IF;
END
$$;

-- Notes that a command is said which something calls: in a table, for the server undoes settings that an index's functions leave. What event
-- triggers of users call does not count: they do not fire on the twin.
CREATE OR REPLACE FUNCTION twinspan.note_called(stack text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    place constant bigint := pg_current_wal_insert_lsn() - '0/0'::pg_lsn;
BEGIN
    IF stack = '' OR EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid WHERE p.pronamespace <> 'twinspan'::regnamespace AND strpos(stack, p.proname || '() line ') > 0) THEN
        RETURN;
    END IF;
    UPDATE twinspan.note n SET value = place WHERE n.pid = pg_backend_pid() AND n.xid = txid_current() AND n.kind = 'said';
    IF NOT FOUND THEN
        PERFORM twinspan.take_note('said', 0, place);
    END IF;
END
$$;

-- Refuses a command that has called code which changed the schema, or rows where the twin is to call it again: there
-- it would do so a second time, for what it did comes with the stream as well. again are the tables whose rows come
-- anew: nothing is called for them, unless others refer to one (apply's emptyAhead).
CREATE OR REPLACE FUNCTION twinspan.refuse_effects(tag text, again oid[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    began constant bigint := twinspan.command_began();
    called constant boolean := again = '{}' OR EXISTS (SELECT FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = ANY (again) AND k.conrelid <> k.confrelid);
    before bigint;
    what text;
BEGIN
    IF tag NOT IN ('ALTER DOMAIN', 'ALTER TABLE', 'CREATE INDEX', 'CREATE MATERIALIZED VIEW', 'CREATE SCHEMA', 'REFRESH MATERIALIZED VIEW') OR NOT called THEN
        RETURN;
    END IF;
    SELECT min(n.value) INTO before FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'changed' AND n.object = began;
    IF EXISTS (SELECT FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'said' AND n.value > began) THEN
        what := 'the schema';
    ELSIF before IS NOT NULL AND twinspan.rows_changed() > before
        -- Those that fire within a command may have changed them.
        AND NOT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid AND p.pronamespace <> 'twinspan'::regnamespace WHERE e.evtevent NOT LIKE '%end' AND e.evtenabled <> 'D') THEN
        what := 'rows of tables';
    ELSE
        RETURN;
    END IF;
    PERFORM twinspan.refuse_ddl(tag, 'ddl_effects', format('a function that the command calls has changed %s, which it would do on the twin once more', what),
        'Call the function by itself, and give the command what it returned.');
END
$$;

-- Nothing of a command is to be carried; but of a string of several commands it is over now.
CREATE OR REPLACE FUNCTION twinspan.pass_over(stack text, tag text, conforming boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    IF stack <> '' OR octet_length(current_query()) > 10000 OR strpos(rtrim(current_query(), E'; \t\r\n'), ';') > 0 THEN
        PERFORM twinspan.ddl_text(stack, tag, conforming, false);
    END IF;
END
$$;

-- Keeps schemas from being renamed until the transaction ends. What the command is about is locked, but for the schema
-- that it lies in: by the name that the twin is told, it would meet another object there, or none, where a new name
-- is committed first. The row is locked as a foreign key locks it: owners and rights may change.
CREATE OR REPLACE FUNCTION twinspan.keep_names(schemas name[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM FROM pg_namespace n WHERE n.nspname = ANY (schemas) FOR KEY SHARE;
END
$$;

-- Puts the schema change that has just been made into the stream, or refuses it. temporary says that
-- it is about temporary objects alone.
CREATE OR REPLACE FUNCTION twinspan.capture_command(tag text, temporary boolean, conforming boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lc_messages = 'C' SET standard_conforming_strings = on /*planner*/ AS
$$
DECLARE
    stack text;
    caller json;
    list text;
    c record;
BEGIN
    GET DIAGNOSTICS stack = PG_CONTEXT;
    -- This function, the statement that calls it, and the trigger.
    stack := substr(stack, strpos(stack || E'\n', E'\n') + 1);
    stack := substr(stack, strpos(stack || E'\n', E'\n') + 1);
    -- Quoted where a session quotes all identifiers; without its schema, and then a name that anybody's function could
    -- have, where the session's search_path has that.
    IF stack !~ '^PL/pgSQL function (twinspan|"twinspan")\.(on_ddl_capture|"on_ddl_capture")\(\) line '
        AND (stack !~ '^PL/pgSQL function (on_ddl_capture|"on_ddl_capture")\(\) line ' OR (SELECT count(*) FROM pg_proc p WHERE p.proname = 'on_ddl_capture') > 1) THEN
        RAISE EXCEPTION 'twinspan.capture_command is for its event trigger alone';
    END IF;
    stack := substr(stack, strpos(stack || E'\n', E'\n') + 1);
    IF coalesce(temporary, false) THEN
        PERFORM twinspan.pass_over(stack, tag, conforming);
        RETURN;
    END IF;
    -- Nothing of these crosses: they change no content, or belong to each server alone.
    IF tag IN ('REINDEX', 'CREATE PUBLICATION', 'ALTER PUBLICATION', 'CREATE SUBSCRIPTION', 'ALTER SUBSCRIPTION') THEN
        RETURN;
    ELSIF twinspan.spend_note('own') THEN
        RETURN;
    ELSIF tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') AND twinspan.spend_note('extension') AND NOT twinspan.noted('extension') THEN
        NULL;
    ELSIF twinspan.noted('extension') THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM twinspan.link WHERE role = 'primary') THEN
        RETURN;
    END IF;
    PERFORM twinspan.refuse_here(tag);
    IF twinspan.copied() THEN
        RETURN;
    END IF;
    PERFORM twinspan.refuse_stale();
    PERFORM twinspan.touch_changed();
    PERFORM twinspan.keep_names(ARRAY(SELECT DISTINCT x.schema_name::name FROM pg_event_trigger_ddl_commands() x WHERE x.schema_name IS NOT NULL));
    caller := current_setting('twinspan.caller', true)::json;
    SELECT count(*) AS total,
           count(*) FILTER (WHERE x.schema_name ~ '^pg_temp(_\d+)?$' OR x.classid IS NOT NULL AND twinspan.temporary(x.classid, x.objid)) AS temporary,
           count(*) FILTER (WHERE x.in_extension OR twinspan.own(x.object_type, x.schema_name, x.object_identity)) AS own
      INTO c FROM pg_event_trigger_ddl_commands() x;
    IF tag IN ('GRANT', 'REVOKE') THEN
        list := twinspan.granted();
    END IF;
    IF (c.total = c.temporary + c.own AND tag NOT IN ('ALTER DEFAULT PRIVILEGES', 'DROP OWNED')) OR list = '' THEN
        PERFORM twinspan.pass_over(stack, tag, conforming);
        RETURN;
    END IF;
    PERFORM twinspan.capture_ddl(tag, stack, list, caller);
END
$$;

-- list is on what a GRANT or REVOKE was that was about temporary objects, too.
CREATE OR REPLACE FUNCTION twinspan.capture_ddl(tag text, stack text, list text, caller json) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    conforming boolean := caller->>'standard_conforming_strings' = 'on';
    command text;
    mask text;
    objects text[] := (SELECT array_agg(DISTINCT x.object_identity) FROM pg_event_trigger_ddl_commands() x WHERE x.object_identity IS NOT NULL);
    extra text[] := '{}';
    again oid[] := '{}';
    anew jsonb;
    made oid;
    named record;
    since bigint;
    besides jsonb := '{}';
BEGIN
    PERFORM twinspan.refuse_early(tag);
    -- Asked for in any case: it moves the place in a string of several commands.
    command := twinspan.ddl_text(stack, tag, conforming, true);
    IF tag IN ('CREATE TABLE AS', 'SELECT INTO') THEN
        SELECT x.objid INTO made FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_class'::regclass AND x.objsubid = 0;
    ELSIF command IS NULL OR NOT twinspan.names_it(tag, command) THEN
        PERFORM twinspan.refuse_ddl(tag, 'ddl_text_unknown', 'the text of the command cannot be told from what called it',
            'Send the command by itself, or run it with EXECUTE in a PL/pgSQL function or DO block.');
    ELSE
        mask := twinspan.mask(command, conforming);
        made := twinspan.made_like(tag, command, mask);
        IF made IS NOT NULL THEN
            extra := twinspan.table_parts(made);
        ELSIF tag = 'CREATE MATERIALIZED VIEW' AND twinspan.says_moment(command, mask) THEN
            SELECT x.objid INTO made FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_class'::regclass AND x.objsubid = 0;
        END IF;
    END IF;
    IF made IS NOT NULL THEN
        command := CASE tag WHEN 'CREATE MATERIALIZED VIEW' THEN twinspan.view_text(made) ELSE twinspan.table_text(made) END;
        conforming := true;
        caller := (caller::jsonb || '{"standard_conforming_strings": "on"}')::json;
        mask := twinspan.mask(command, conforming);
    END IF;
    PERFORM twinspan.refuse_while_seeding(tag, mask, twinspan.spend_note('dropped'));
    PERFORM twinspan.refuse_late(tag);
    -- An identity that the table has already leaves no trace in the catalogs.
    IF tag = 'ALTER TABLE' AND mask ~ '\mreplica\s+identity\s+(full|default|nothing|using)\M' THEN
        PERFORM twinspan.take_note('wish', x.objid::bigint) FROM pg_event_trigger_ddl_commands() x
          WHERE x.classid = 'pg_class'::regclass AND x.object_type = 'table' AND x.command_tag = tag;
    END IF;
    IF tag IN ('ALTER TABLE', 'ALTER TYPE', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE') THEN
        again := twinspan.differing_rows(mask);
        extra := twinspan.missing_values(again) || twinspan.detached(command, mask, caller->>'search_path');
        anew := (SELECT jsonb_agg(jsonb_build_object('schema', twinspan.raw(n.nspname), 'table', twinspan.raw(c.relname)) ORDER BY c.oid)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (again));
    END IF;
    IF tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') THEN
        SELECT min(n.cmin::text::bigint) INTO since FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'script';
        WHILE twinspan.spend_note('script') LOOP
        END LOOP;
        SELECT coalesce(array_agg(x.emptied), '{}') INTO extra FROM twinspan.tables_of_script(mask, since, true) x;
        SELECT coalesce(array_agg(x.t), '{}'), jsonb_strip_nulls(jsonb_build_object('before', jsonb_agg(twinspan.raw(x.emptied)))) INTO again, besides FROM twinspan.tables_of_script(mask, since, false) x;
    ELSIF tag = 'CREATE INDEX' THEN
        besides := jsonb_build_object('invalid', twinspan.left_invalid(mask));
    ELSIF tag IN ('ALTER INDEX', 'ALTER TABLE', 'COMMENT') THEN
        named := twinspan.named_index(tag, command, mask, caller->>'search_path');
        IF NOT named.carried THEN
            RETURN;
        END IF;
        besides := jsonb_strip_nulls(jsonb_build_object('before', CASE WHEN named.before IS NOT NULL THEN jsonb_build_array(twinspan.raw(named.before)) END));
    END IF;
    extra := extra || twinspan.folded(command, mask) || twinspan.bounds_of_elements(tag, mask);
    IF tag ~ '^(CREATE|ALTER) (FUNCTION|PROCEDURE|ROUTINE)$' AND mask ~ '\m(set|reset)\s+(role|session_authorization|session\s+authorization)\M' THEN
        besides := besides || (SELECT jsonb_build_object('config', coalesce((SELECT jsonb_agg(twinspan.raw(o.c) ORDER BY o.number) FROM unnest(p.proconfig) WITH ORDINALITY o (c, number)), '[]'))
                                 FROM pg_event_trigger_ddl_commands() x JOIN pg_proc p ON x.classid = 'pg_proc'::regclass AND p.oid = x.objid LIMIT 1);
    END IF;
    PERFORM twinspan.refuse_effects(tag, again);
    PERFORM twinspan.note_called(stack);
    caller := (twinspan.session_settings(tag, command, mask) || caller::jsonb)::json;
    PERFORM twinspan.say_ddl(tag, command, conforming, caller, objects, extra,
        besides || jsonb_strip_nulls(jsonb_build_object('on', twinspan.raw(list), 'anew', anew, 'whole', twinspan.named_first(tag, mask), 'bound', twinspan.raw(twinspan.partition_bound(tag, mask)),
            'extension', (SELECT twinspan.raw(e.extname) FROM pg_event_trigger_ddl_commands() x JOIN pg_extension e ON x.classid = 'pg_extension'::regclass AND e.oid = x.objid LIMIT 1),
            'version', (SELECT twinspan.raw(e.extversion) FROM pg_event_trigger_ddl_commands() x JOIN pg_extension e ON x.classid = 'pg_extension'::regclass AND e.oid = x.objid LIMIT 1))));
    IF EXISTS (SELECT FROM twinspan.link k WHERE k.role = 'primary' AND NOT EXISTS (SELECT FROM twinspan.twin_format f WHERE f.link = k.id AND f.format >= 2)) THEN
        PERFORM twinspan.resend(t, tag) FROM unnest(again) t;
    ELSE
        PERFORM twinspan.send_rows(t) FROM unnest(again) t;
    END IF;
END
$$;

-- A schema change as it is said.
CREATE OR REPLACE FUNCTION twinspan.described(tag text, command text, conforming boolean, caller json, objects text[], extra text[], besides jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (SELECT besides || jsonb_build_object('format', 2, 'tag', tag, 'sql', twinspan.raw(command), 'conforming', conforming,
            'role', twinspan.raw(caller->>'role'),
            -- As it is now: by the time the twin comes here the role may be another, or gone.
            'superuser', (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = caller->>'role'),
            'member', (SELECT jsonb_agg(twinspan.raw(g.rolname) ORDER BY g.rolname) FROM pg_roles r CROSS JOIN pg_roles g
                        WHERE r.rolname = caller->>'role' AND NOT r.rolsuper AND g.oid <> r.oid
                          -- From version 16 on, who is a member need not be able to use it.
                          AND (pg_has_role(r.oid, g.oid, 'USAGE') OR pg_has_role(r.oid, g.oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END))),
            'creates', has_database_privilege(caller->>'role', current_database(), 'CREATE'),
            'settings', (SELECT jsonb_object_agg(e.key, twinspan.raw(e.value)) FROM json_each_text(caller) e WHERE e.key NOT IN ('role', 'session') AND e.value IS NOT NULL),
            'objects', (SELECT coalesce(jsonb_agg(twinspan.raw(o)), '[]') FROM unnest(objects) o),
            'roles', (SELECT coalesce(jsonb_agg(twinspan.raw(r.rolname)), '[]') FROM pg_roles r
                       WHERE r.rolname NOT LIKE 'pg\_%' AND (strpos(lower(command), lower(r.rolname)) > 0 OR r.rolname = caller->>'session')),
            'session', twinspan.raw(caller->>'session'),
            'tablespaces', (SELECT coalesce(jsonb_agg(twinspan.raw(s.spcname)), '[]') FROM pg_tablespace s WHERE strpos(lower(command), lower(s.spcname)) > 0),
            'after', (SELECT coalesce(jsonb_agg(twinspan.raw(e)), '[]') FROM unnest(extra) e)));
END
$$;

-- Says a schema change: what to run, as whom, under which settings, and what to run behind it;
-- besides is what of the catalogs replaces a part of the text.
CREATE OR REPLACE FUNCTION twinspan.say_ddl(tag text, command text, conforming boolean, caller json, objects text[], extra text[], besides jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    PERFORM twinspan.refuse_former_superuser(caller->>'role');
    PERFORM twinspan.say('ddl', twinspan.described(tag, command, conforming, caller, objects, extra, besides));
END
$$;

-- Whether a text names what the command has made or changed, as far as it has to:
-- one that does not is that of another command.
CREATE OR REPLACE FUNCTION twinspan.names_it(tag text, q text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (
    SELECT tag !~ '^(CREATE|ALTER) (TABLE|VIEW|MATERIALIZED VIEW|FOREIGN TABLE|SEQUENCE|FUNCTION|PROCEDURE)$' OR q ~* 'u&"|\mall\s+in\s+tablespace\M'
        OR coalesce(bool_or(strpos(lower(replace(q, '""', '"')), lower(coalesce(c.relname, p.proname))) > 0), true)
      FROM pg_event_trigger_ddl_commands() x
      LEFT JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid
      LEFT JOIN pg_proc p ON x.classid = 'pg_proc'::regclass AND p.oid = x.objid
     WHERE c.oid IS NOT NULL OR p.oid IS NOT NULL);
END
$$;

-- Refusals that need no text.
CREATE OR REPLACE FUNCTION twinspan.refuse_early(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    r record;
BEGIN
    IF tag = 'IMPORT FOREIGN SCHEMA' THEN
        PERFORM twinspan.refuse_ddl(tag, 'ddl_import_foreign_schema', 'what it creates is decided by a server that the twin may not reach',
            'Create the foreign tables with CREATE FOREIGN TABLE.');
    ELSIF tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') THEN
        FOR r IN SELECT e.extname, k.name AS link FROM pg_event_trigger_ddl_commands() x
                   JOIN pg_extension e ON x.classid = 'pg_extension'::regclass AND e.oid = x.objid
                   JOIN twinspan.link k ON k.role = 'primary'
                    AND EXISTS (SELECT FROM twinspan.twin_extension t WHERE t.link = k.id)
                    AND NOT EXISTS (SELECT FROM twinspan.twin_extension t WHERE t.link = k.id AND t.name = e.extname) LOOP
            PERFORM twinspan.refuse_ddl(tag, 'ddl_extension_missing', format('the twin of link "%s" runs on a server without the extension "%s"', r.link, r.extname),
                format('Install the package of extension "%s" on the twin''s server, then suspend and resume the link.', r.extname));
        END LOOP;
    END IF;
END
$$;

-- Whether an index or statistics of a table that is being copied call a function of a user's. The copy has judged
-- its tables once; an expression that comes later is evaluated where the next part of the table is asked for, with the
-- agent's rights (plancat.c, get_relation_info).
CREATE OR REPLACE FUNCTION twinspan.folds_while_copied() RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    IF NOT EXISTS (SELECT FROM twinspan.link k WHERE k.role = 'primary' AND (NOT k.seeded AND k.phase IN ('suspended', 'broken') OR k.phase = 'seeding') AND NOT k.deleting) THEN
        RETURN false;
    END IF;
    RETURN EXISTS (SELECT FROM pg_event_trigger_ddl_commands() x
                     LEFT JOIN pg_index i ON x.classid = 'pg_class'::regclass AND i.indexrelid = x.objid
                     LEFT JOIN pg_statistic_ext s ON x.classid = 'pg_statistic_ext'::regclass AND s.oid = x.objid
                     JOIN pg_depend d ON d.classid = x.classid AND d.objid = x.objid AND d.refobjid >= 16384
                      AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_cast'::regclass)
                    WHERE (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL OR s.oid IS NOT NULL)
                      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
                      AND (EXISTS (SELECT FROM twinspan.link k WHERE k.role = 'primary' AND k.seeded AND k.phase = 'seeding')
                           OR NOT twinspan.made_since_copy('pg_class'::regclass, coalesce(i.indrelid, s.stxrelid))));
END
$$;

-- While the first copy is made its snapshot is of an older schema, and what indexes and
-- constraints there are is built from a dump of then: so nothing of that is altered or
-- dropped. What may be is what came into being since; owners, which nothing of the copy
-- depends on; and properties of functions by which no index can become impossible.
CREATE OR REPLACE FUNCTION twinspan.refuse_while_seeding(tag text, mask text, copied_dropped boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    IF tag IN ('CREATE INDEX', 'CREATE STATISTICS') AND twinspan.folds_while_copied() THEN
        PERFORM twinspan.refuse_ddl(tag, 'ddl_while_seeding', 'the table is being copied, and a query on it would call functions of users that the command names',
            'Wait until the link is replicating (twinspan link show).');
    END IF;
    IF NOT EXISTS (SELECT FROM twinspan.link WHERE role = 'primary' AND NOT seeded AND phase IN ('seeding', 'suspended', 'broken') AND NOT deleting) THEN
        RETURN;
    END IF;
    IF tag ~ '^(CREATE |SELECT INTO$)' THEN
        -- What is replaced, or is there already, was not made now.
        IF mask !~ '^create\s+or\s+replace\M' AND (mask !~ '\mif\s+not\s+exists\M' OR tag = 'CREATE TABLE') THEN
            INSERT INTO twinspan.made_since
                SELECT DISTINCT k.id, x.classid, x.objid FROM pg_event_trigger_ddl_commands() x
                  JOIN twinspan.link k ON k.role = 'primary' AND NOT k.seeded
                   AND EXISTS (SELECT FROM twinspan.made_since m WHERE m.link = k.id AND m.object = 0)
                 WHERE x.command_tag LIKE 'CREATE %' OR x.command_tag = 'SELECT INTO'
                ON CONFLICT DO NOTHING;
        END IF;
        RETURN;
    END IF;
    IF tag !~ '^(ALTER|DROP) ' OR tag = 'ALTER DEFAULT PRIVILEGES'
        OR tag LIKE 'ALTER %' AND mask ~ '\sowner\s+to\s+[^\s,]+$' AND (tag ~ ' (FUNCTION|PROCEDURE|ROUTINE|AGGREGATE|OPERATOR)' OR strpos(mask, ',') = 0)
        OR tag IN ('ALTER FUNCTION', 'ALTER PROCEDURE', 'ALTER ROUTINE') AND mask !~ '\m(rename|schema|volatile|stable)\M'
        OR tag LIKE 'DROP %' AND NOT copied_dropped
        OR tag LIKE 'ALTER %' AND tag <> 'ALTER EXTENSION' AND mask !~ '\m(attach|inherit)\M' AND NOT copied_dropped
            AND (SELECT bool_and(twinspan.made_since_copy(x.classid, x.objid)) FROM pg_event_trigger_ddl_commands() x) THEN
        RETURN;
    END IF;
    PERFORM twinspan.refuse_ddl(tag, 'ddl_while_seeding', 'the first copy of the database is being made, which reads what the command changes',
        'Wait until the link is replicating (twinspan link show), or delete the link.');
END
$$;

-- Refusals by what the catalogs have now.
CREATE OR REPLACE FUNCTION twinspan.refuse_late(tag text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    IF tag IN ('CREATE FUNCTION', 'CREATE PROCEDURE') AND EXISTS (
            SELECT FROM pg_event_trigger_ddl_commands() x JOIN pg_proc p ON x.classid = 'pg_proc'::regclass AND p.oid = x.objid
              JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
             WHERE NOT twinspan.shared_library(p.probin)) THEN
        PERFORM twinspan.refuse_ddl(tag, 'ddl_c_function', 'a function in C needs a library that the twin''s server may not have',
            'Pack it into an extension, install that on both servers, and use CREATE EXTENSION.');
    END IF;
    PERFORM twinspan.refuse_temporary(tag);
    PERFORM twinspan.refuse_unwritable(tag);
END
$$;

-- Tables that the command has rewritten with values that the twin need not compute alike: 1 is that
-- the table became logged or unlogged, 2 a default, 4 a changed type (the AT_REWRITE_ constants of
-- event_trigger.h). Which conversion a changed type went through is in no catalog, so it is
-- never taken for the same on both sides. A command that a function of a running one gives has other tables
-- than that; their notes stay for it.
CREATE OR REPLACE FUNCTION twinspan.differing_rows(mask text) RETURNS oid[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    list oid[];
BEGIN
    IF NOT EXISTS (SELECT FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current_if_assigned() AND n.kind = 'rewritten') THEN
        RETURN '{}';
    END IF;
    WITH RECURSIVE t (oid) AS (
        SELECT x.objid FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_class'::regclass
        UNION SELECT c.oid FROM pg_event_trigger_ddl_commands() x JOIN pg_class c ON x.classid = 'pg_type'::regclass AND c.reloftype = x.objid
        UNION SELECT i.inhrelid FROM t JOIN pg_inherits i ON i.inhparent = t.oid),
    spent AS (
        DELETE FROM twinspan.note n WHERE n.pid = pg_backend_pid() AND n.xid = txid_current() AND n.kind = 'rewritten' AND n.object IN (SELECT t.oid::bigint FROM t)
        RETURNING n.object, n.value)
    SELECT coalesce(array_agg(DISTINCT c.oid), '{}') INTO list
      FROM spent x JOIN pg_class c ON c.oid::bigint = x.object AND c.relkind = 'r' AND c.relpersistence = 'p'
     WHERE x.value & 5 <> 0
        OR x.value & 2 <> 0 AND EXISTS (
            SELECT FROM pg_attribute a
              LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
              JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND (coalesce(to_jsonb(a)->>'attidentity', '') <> '' OR NOT twinspan.immutable(d.adbin) OR d.adbin IS NULL AND t.typtype = 'd' AND NOT twinspan.immutable(t.typdefaultbin)));
    RETURN list;
END
$$;

-- DETACH PARTITION CONCURRENTLY leaves the partition a constraint that the plain
-- form, which the twin runs, does not make (tablecmds.c, DetachAddConstraintIfNeeded).
CREATE OR REPLACE FUNCTION twinspan.detached(q text, mask text, path text) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    name text;
    list text[];
BEGIN
    IF mask !~ '\mdetach\s+partition\M.*\m(concurrently|finalize)$' THEN
        RETURN '{}';
    END IF;
    name := substring(twinspan.uncommented(q) from '(?i)\mpartition\s+((?:"(?:[^"]|"")*"|[^\s".;])+(?:\s*\.\s*(?:"(?:[^"]|"")*"|[^\s".;]+))?)\s+(?:concurrently|finalize)');
    PERFORM set_config('search_path', path, true);
    SELECT pg_catalog.array_agg(pg_catalog.format('DO %L', pg_catalog.format(
               'BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid OPERATOR(pg_catalog.=) %L::pg_catalog.regclass AND conname OPERATOR(pg_catalog.=) %L) THEN ALTER TABLE ONLY %I.%I ADD CONSTRAINT %I %s; END IF; END',
               pg_catalog.format('%I.%I', n.nspname, c.relname), k.conname, n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid))))
      INTO list
      FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE k.contype OPERATOR(pg_catalog.=) 'c' AND k.conrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(name)::pg_catalog.oid;
    RETURN coalesce(list, '{}');
END
$$;

-- Since version 11 a column is added without a rewrite when its default is stable:
-- its value now, the same for every row, lies in the catalogs. The twin gets it as
-- a constant, once: a column that was there before is none that the command added, whatever
-- default it has got.
CREATE OR REPLACE FUNCTION twinspan.missing_values(except_tables oid[]) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' AS
$$
DECLARE
    list text[] := '{}';
    r record;
BEGIN
    IF current_setting('server_version_num')::int < 110000 THEN
        RETURN list;
    END IF;
    FOR r IN
        WITH RECURSIVE t (oid) AS (
            SELECT x.objid FROM pg_event_trigger_ddl_commands() x WHERE x.classid = 'pg_class'::regclass
            UNION SELECT i.inhrelid FROM t JOIN pg_inherits i ON i.inhparent = t.oid)
        SELECT c.oid, a.attnum, CASE WHEN c.oid <> ALL (except_tables) AND NOT twinspan.immutable(d.adbin) THEN
                   format('UPDATE ONLY %I.%I SET %I = CAST(%L AS %s)', n.nspname, c.relname, a.attname,
                       (a.attmissingval::text::text[])[1], format_type(a.atttypid, a.atttypmod)) END AS sql
          FROM t JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'r' AND c.relpersistence = 'p'
          JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atthasmissing
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE NOT EXISTS (SELECT FROM twinspan.filled f WHERE f.object = c.oid AND f.number = a.attnum)
         ORDER BY c.oid, a.attnum
    LOOP
        INSERT INTO twinspan.filled VALUES (r.oid, r.attnum);
        IF r.sql IS NOT NULL THEN
            list := list || r.sql;
        END IF;
    END LOOP;
    RETURN list;
END
$$;

-- The triggers come last: where these functions are made anew, they fire for that, too.

CREATE OR REPLACE FUNCTION twinspan.on_ddl_drop() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER AS
$$
BEGIN
    IF pg_catalog.current_setting('twinspan.caller', true) OPERATOR(pg_catalog.<>) '' AND EXISTS (SELECT FROM twinspan.link k WHERE k.role OPERATOR(pg_catalog.=) 'primary') AND NOT twinspan.copied() THEN
        PERFORM twinspan.capture_drop(TG_TAG);
    END IF;
END
$$;

-- A command on nothing but temporary objects is over here, unless the place in a string of several has to be
-- moved. Without settings of its own, which cost more than all else: so everything is named in full.
CREATE OR REPLACE FUNCTION twinspan.on_ddl_capture() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER AS
$$
DECLARE
    stack pg_catalog.text;
    temporary constant pg_catalog.bool := pg_catalog.current_setting('twinspan.caller', true) OPERATOR(pg_catalog.=) '';
    began constant pg_catalog.text := pg_catalog.current_setting('twinspan.began', true);
BEGIN
    IF TG_TAG OPERATOR(pg_catalog.~~) 'DROP %' AND TG_TAG OPERATOR(pg_catalog.<>) 'DROP OWNED' THEN
        RETURN; -- it has been seen to
    ELSIF temporary THEN
        GET DIAGNOSTICS stack = PG_CONTEXT;
        stack := pg_catalog.substr(stack, pg_catalog.strpos(pg_catalog.concat(stack, E'\n'), E'\n') OPERATOR(pg_catalog.+) 1);
        IF stack OPERATOR(pg_catalog.=) '' THEN
            stack := CASE WHEN pg_catalog.octet_length(pg_catalog.current_query()) OPERATOR(pg_catalog.>) 10000 THEN ';' ELSE pg_catalog.current_query() END;
        END IF;
    END IF;
    IF NOT temporary OR pg_catalog.strpos(stack, ';') OPERATOR(pg_catalog.>) 0 THEN
        PERFORM twinspan.capture_command(TG_TAG, temporary, pg_catalog.current_setting('standard_conforming_strings') OPERATOR(pg_catalog.=) 'on');
    END IF;
    IF TG_TAG OPERATOR(pg_catalog.=) ANY ('{ALTER DOMAIN,ALTER EXTENSION,ALTER TABLE,CREATE EXTENSION,CREATE INDEX,CREATE MATERIALIZED VIEW,CREATE SCHEMA,GRANT,REFRESH MATERIALIZED VIEW,REVOKE}') THEN
        PERFORM pg_catalog.set_config('twinspan.began', pg_catalog.substr(began, pg_catalog.strpos(pg_catalog.concat(began, ' '), ' ') OPERATOR(pg_catalog.+) 1), true);
    END IF;
END
$$;
