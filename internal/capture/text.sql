-- How the text of the command that fires an event trigger is found
-- (docs/design/0006-schema-changes.md): PostgreSQL tells only the whole string that
-- was sent, or the call stack. The functions without a search_path of their own are for
-- those with one alone: so they cost no call.

-- How much of a text is ordinary: words, quoted names and strings that are closed, comments to
-- the end of a line, and single characters, up to what takes more than a regular expression:
-- a semicolon, a dollar, a slash, what is not closed, and a quote before the end of a line, with
-- which the stack ends a statement. The two differ in whether a backslash
-- escapes in a plain string. A word must be followed by something else before the next, so
-- that each text has one reading: DATE'x\' holds no string of the form E'x\''.
CREATE OR REPLACE FUNCTION twinspan.ordinary(t text, conforming boolean) RETURNS text
    LANGUAGE sql IMMUTABLE AS
$$
    SELECT substring(t FROM CASE WHEN conforming THEN
        $x$^(?:(?:-?(?:[\u0001-\u0020!#%&()*+,.:<=>?@[\\\]^`{|}~\u007f]|'(?:[^']|'')*'|"(?:""|[^"\n])(?:[^"]|"")*")|--[^\n\r]*[\n\r])$x$
        || $x$|-?(?:[^\u0001-/:-@[-^`{-\u007feE][^\u0001-#%-/:-@[-^`{-\u007f]*|[eE][^\u0001-#%-/:-@[-^`{-\u007f]+)(?:-?(?:[\u0001-\u0020!#%&()*+,.:<=>?@[\\\]^`{|}~\u007f]|'(?:[^']|'')*'|"(?:""|[^"\n])(?:[^"]|"")*")|--[^\n\r]*[\n\r])$x$
        || $x$|-?[eE](?:[\u0001-\u0020!#%&()*+,.:<=>?@[\\\]^`{|}~\u007f]|'(?:[^'\\]|''|\\.)*'|"(?:""|[^"\n])(?:[^"]|"")*"|--[^\n\r]*[\n\r])$x$
        || $x$)*(?:-?[^\u0001-/:-@[-^`{-\u007f][^\u0001-#%-/:-@[-^`{-\u007f]*)?$x$
        ELSE
        $x$^(?:(?:-?(?:[\u0001-\u0020!#%&()*+,.:<=>?@[\\\]^`{|}~\u007f]|'(?:[^'\\]|''|\\.)*'|"(?:""|[^"\n])(?:[^"]|"")*")|--[^\n\r]*[\n\r])$x$
        || $x$|-?(?:[^\u0001-/:-@[-^`{-\u007feE][^\u0001-#%-/:-@[-^`{-\u007f]*|[eE][^\u0001-#%-/:-@[-^`{-\u007f]+)(?:-?(?:[\u0001-\u0020!#%&()*+,.:<=>?@[\\\]^`{|}~\u007f]|'(?:[^'\\]|''|\\.)*'|"(?:""|[^"\n])(?:[^"]|"")*")|--[^\n\r]*[\n\r])$x$
        || $x$|-?[eE](?:[\u0001-\u0020!#%&()*+,.:<=>?@[\\\]^`{|}~\u007f]|'(?:[^'\\]|''|\\.)*'|"(?:""|[^"\n])(?:[^"]|"")*"|--[^\n\r]*[\n\r])$x$
        || $x$)*(?:-?[^\u0001-/:-@[-^`{-\u007f][^\u0001-#%-/:-@[-^`{-\u007f]*)?$x$ END)
$$;

-- A statement without what is quoted, which becomes x, and without comments, in lower case.
-- Of text that is ordinary.
CREATE OR REPLACE FUNCTION twinspan.bare(t text, conforming boolean) RETURNS text
    LANGUAGE sql IMMUTABLE AS
$$
    SELECT CASE WHEN t !~ '[-"'']' THEN lower(t) ELSE lower(regexp_replace(regexp_replace(t, CASE WHEN conforming
        THEN '(--[^\n\r]*)|"(?:[^"]|"")*"|\m[eE]''(?:[^''\\]|''''|\\.)*''|''(?:[^'']|'''')*'''
        ELSE '(--[^\n\r]*)|"(?:[^"]|"")*"|\m[eE]''(?:[^''\\]|''''|\\.)*''|''(?:[^''\\]|''''|\\.)*''' END, '\1x', 'g'), '--[^\n\r]*', ' ', 'g')) END
$$;

-- The part of a text, given as bytes, from a place on that is some thousand bytes long and ends behind a
-- line's end or a semicolon, at which nothing that is longer than a character can be divided but what is
-- quoted; longer where there is none.
CREATE OR REPLACE FUNCTION twinspan.portion(q bytea, place int, wish int) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    total constant int := length(q);
    size int := wish;
    n int;
    t text;
BEGIN
    LOOP
        IF place + size > total THEN
            RETURN convert_from(substring(q FROM place), getdatabaseencoding()::name);
        END IF;
        -- Not within a character: no byte of one that has several is ASCII.
        n := size;
        WHILE n > 0 AND get_byte(q, place + n - 2) > 127 LOOP
            n := n - 1;
        END LOOP;
        t := substring(convert_from(substring(q FROM place FOR n), getdatabaseencoding()::name) FROM '^.*[\n;]');
        IF t IS NOT NULL THEN
            RETURN t;
        END IF;
        size := size * 2;
    END LOOP;
END
$$;

-- The statements of a string: where each begins and how long it is, in bytes, and a mask of those
-- that can fire an event trigger: what is bare of them. Semicolons in parentheses
-- (rules) and in BEGIN ATOMIC bodies end no statement. With framed the string is followed by a
-- quote and a line's end, or nothing, as on the stack, and one row more says where: first is that
-- quote's place, unknown where there is none. Time grows with the string's length alone.
CREATE OR REPLACE FUNCTION twinspan.split(q text, conforming boolean, framed boolean DEFAULT false) RETURNS TABLE (first int, size int, mask text)
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    bytes bytea := convert_to(q, getdatabaseencoding()::name);
    portion constant int := 6000;
    wish int := portion; -- how much more to read when something is not closed
    rest text;           -- what was read and is not taken
    base int := 0;       -- bytes before rest
    past int := 0;       -- bytes before what is not read
    begun int := 0;      -- bytes before the statement
    wanted boolean;      -- it can fire an event trigger; unknown before its first word
    more boolean;
    over boolean;
    ends int;            -- bytes of a framed string, once known
    s text;
    tag text;
    n int;
    depth int;
    opens int;
    closes int;
    m text;
BEGIN
    IF q IS NULL THEN
        RETURN;
    END IF;
    mask := '';
    rest := '';
    LOOP
        IF rest = '' AND past < length(bytes) THEN
            rest := twinspan.portion(bytes, past + 1, portion);
            past := past + octet_length(rest);
        END IF;
        s := twinspan.ordinary(rest, conforming);
        tag := NULL;
        more := false;
        n := length(s);
        CASE substr(rest, n + 1, 1)
        WHEN '' THEN
            NULL;
        WHEN ';' THEN
            NULL;
        WHEN '$' THEN
            tag := substring(substr(rest, n + 1, 66) from '^\$(?:[^\u0001-@[-^`{-\u007f][^\u0001-/:-@[-^`{-\u007f]*)?\$');
            IF tag IS NOT NULL THEN
                depth := strpos(substr(rest, n + 1 + length(tag)), tag);
                more := depth = 0;
                n := n + CASE WHEN depth = 0 THEN 0 ELSE 2 * length(tag) + depth - 1 END;
            ELSE
                n := n + 1;
            END IF;
        WHEN '/' THEN
            IF substr(rest, n + 2, 1) <> '*' THEN
                n := n + 1;
            ELSE
                tag := '/*';
                depth := 0;
                LOOP
                    opens := strpos(substr(rest, n + 1), '/*');
                    closes := strpos(substr(rest, n + 1), '*/');
                    depth := depth + CASE WHEN opens > 0 AND (opens < closes OR closes = 0) THEN 1 ELSE -1 END;
                    EXIT WHEN closes = 0;
                    n := n + CASE WHEN opens > 0 AND opens < closes THEN opens ELSE closes END + 1;
                    EXIT WHEN depth = 0;
                END LOOP;
                more := closes = 0;
            END IF;
        WHEN '-' THEN
            more := substr(rest, n + 2, 1) = '-';
            n := n + CASE WHEN more THEN 0 ELSE 1 END;
        WHEN '"' THEN
            IF framed AND ends IS NULL AND (substr(rest, n + 2, 1) = E'\n' OR past = length(bytes) AND length(rest) = n + 1) THEN
                ends := base + octet_length(left(rest, n));
                rest := left(rest, n);
                past := ends;
                bytes := substring(bytes FROM 1 FOR ends);
                CONTINUE;
            END IF;
            m := substring(substr(rest, n + 1) from '^"(?:[^"]|"")*"');
            more := m IS NULL;
            n := n + CASE WHEN more THEN 0 ELSE length(m) END;
            tag := m;
        ELSE
            more := true;
        END CASE;
        IF more AND past < length(bytes) THEN
            -- From where this began, for what is not closed is to be read with what is before it.
            m := twinspan.portion(bytes, past + 1, wish);
            rest := rest || m;
            past := past + octet_length(m);
            wish := wish * 2;
            CONTINUE;
        ELSIF more THEN
            n := length(rest);
        END IF;
        wish := portion;
        IF wanted IS NULL AND s <> '' THEN
            m := twinspan.bare(left(s, 4000), conforming);
            IF length(s) > 4000 AND m !~ '[^\s(]' THEN
                m := twinspan.bare(s, conforming);
            END IF;
            IF m ~ '[^\s(]' THEN
                wanted := m ~ '^[\s(]*(create|alter|drop|grant|revoke|comment|security|import|refresh|explain|select|with|table|values|reindex|cluster)\M'
                    AND (m !~ '^[\s(]*(select|with|table|values)\M' OR s ~* '\minto\M');
            END IF;
        END IF;
        IF wanted THEN
            mask := mask || twinspan.bare(s, conforming) || CASE WHEN tag LIKE '/*%' THEN ' ' WHEN tag IS NOT NULL THEN 'x' ELSE substr(rest, length(s) + 1, n - length(s)) END;
        END IF;
        base := base + octet_length(left(rest, n));
        rest := substr(rest, n + 1);
        over := left(rest, 1) = ';' AND NOT (coalesce(wanted, false) AND mask ~ '^\s*create' AND twinspan.goes_on(mask));
        IF over OR rest = '' AND past = length(bytes) THEN
            IF wanted IS NOT NULL THEN
                first := begun + 1;
                size := base - begun;
                mask := CASE WHEN wanted THEN btrim(mask, E' \t\n\r\f') END;
                RETURN NEXT;
            END IF;
            EXIT WHEN NOT over;
            begun := base + 1;
            wanted := NULL;
            mask := '';
        ELSIF left(rest, 1) = ';' THEN
            mask := mask || ';';
        END IF;
        IF left(rest, 1) = ';' THEN
            base := base + 1;
            rest := substr(rest, 2);
        END IF;
    END LOOP;
    IF framed THEN
        first := ends + 1;
        size := 0;
        mask := NULL;
        RETURN NEXT;
    END IF;
END
$$;

-- Whether a statement is not over at a semicolon: within a rule's parentheses, or a body of
-- BEGIN ATOMIC.
CREATE OR REPLACE FUNCTION twinspan.goes_on(mask text) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS
$$
    SELECT mask ~ '^\s*create\s+(or\s+replace\s+)?(rule|function|procedure)\M'
       AND (length(replace(mask, '(', '')) < length(replace(mask, ')', ''))
            OR mask ~ '\mbegin\s+atomic\M'
           AND (SELECT count(*) FROM regexp_matches(mask, '\m(begin|case)\M', 'g')) > (SELECT count(*) FROM regexp_matches(mask, '\mend\M', 'g')))
$$;

-- The mask of one statement.
CREATE OR REPLACE FUNCTION twinspan.mask(q text, conforming boolean) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
BEGIN
    RETURN (SELECT coalesce((SELECT x.mask FROM twinspan.split(q, conforming) x ORDER BY x.first LIMIT 1), ''));
END
$$;

-- Part of a text, by its place in bytes.
CREATE OR REPLACE FUNCTION twinspan.part(q text, first int, size int) RETURNS text
    LANGUAGE sql STABLE AS
$$
    SELECT convert_from(substring(convert_to(q, getdatabaseencoding()::name) FROM first FOR size), getdatabaseencoding()::name)
$$;

-- Whether a statement, given by its mask, is one that fires event triggers with
-- this tag. Commands on what all databases share fire none.
CREATE OR REPLACE FUNCTION twinspan.fits(mask text, tag text) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS
$$
    SELECT CASE
        WHEN tag = 'SELECT INTO' THEN mask ~ '^\(*\s*(select|with|table|values)\M.*\minto\M'
        WHEN tag = 'CREATE TABLE AS' THEN mask ~ '^(explain\M.*)?create\M.*\mas\M'
        WHEN tag IN ('GRANT', 'REVOKE') THEN mask ~ ('^' || lower(tag) || '\M.*\mon\M')
            AND mask !~ '\mon\s+(database|tablespace|parameter)\M'
        WHEN tag IN ('COMMENT', 'SECURITY LABEL') THEN mask ~ ('^' || replace(lower(tag), ' ', '\s+') || '\M.*\mon\M')
            AND mask !~ '\mon\s+(database|role|tablespace|event\s+trigger|subscription|publication)\M'
        -- Versions before 13 call some commands on what is like a table so.
        WHEN tag = 'ALTER TABLE' THEN mask ~ '^alter\s+(table|view|materialized\s+view|index|sequence|foreign\s+table|type)\M'
        ELSE mask ~ ('^' || split_part(lower(tag), ' ', 1)
            || '(\s+(or|replace|temp|temporary|local|global|unlogged|unique|constraint|trusted|procedural|recursive|default))*'
            || regexp_replace(substr(lower(tag), length(split_part(tag, ' ', 1)) + 1), '\s+', '\\s+', 'g') || '\M')
        END
$$;

-- The statement of the given tag in a string that may hold several: the next one that fits behind
-- the one found before in the same string. What a client sends at one moment is one string: it is
-- executed from its beginning to its end. A function may execute a string again and again (nested).
-- Where the text is not needed, only the place is moved.
CREATE OR REPLACE FUNCTION twinspan.pick(q text, tag text, conforming boolean, nested boolean, needed boolean) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET exit_on_error = off AS
$$
DECLARE
    moment constant bigint := (extract(epoch FROM statement_timestamp()) * 1000000)::bigint & 2199023255551;
    string bigint := moment;
    place bigint := 0;
    at bigint := 0;
    last bigint := 0;
    p record;
BEGIN
    IF nested THEN
        IF strpos(rtrim(q, E'; \t\r\n'), ';') = 0 THEN
            RETURN q;
        END IF;
        string := -(('x' || left(md5(q), 15))::bit(60)::bigint) - 1;
        SELECT n.value, n.number INTO place, last FROM twinspan.note n
         WHERE n.pid = pg_backend_pid() AND n.xid = txid_current() AND n.kind = 'nested' AND n.object = string ORDER BY n.number DESC LIMIT 1;
        place := coalesce(place, 0);
    ELSE
        BEGIN
            at := currval('twinspan.place');
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            NULL;
        END;
        IF at >> 22 = moment THEN
            place := at & 4194303;
        ELSE
            q := current_query();
            IF strpos(rtrim(q, E'; \t\r\n'), ';') = 0 THEN
                RETURN q;
            END IF;
        END IF;
    END IF;
    IF NOT EXISTS (SELECT FROM twinspan.piece c WHERE c.pid = pg_backend_pid() AND c.key = string) THEN
        DELETE FROM twinspan.piece c WHERE c.pid = pg_backend_pid() AND sign(c.key) = sign(string);
        INSERT INTO twinspan.piece SELECT pg_backend_pid(), string, row_number() OVER (ORDER BY s.first), s.first, s.size, regexp_replace(s.mask, '\d', '0', 'g')
          FROM twinspan.split(coalesce(q, current_query()), conforming) s;
    END IF;
    FOR wrapped IN 0..CASE WHEN nested AND place > 0 THEN 1 ELSE 0 END LOOP
        FOR p IN SELECT c.number, c.first, c.size, c.mask FROM twinspan.piece c
                  WHERE c.pid = pg_backend_pid() AND c.key = string AND c.number > place AND c.mask IS NOT NULL ORDER BY c.number LOOP
            CONTINUE WHEN NOT twinspan.fits(p.mask, tag);
            IF nested THEN
                PERFORM twinspan.take_note('nested', string, p.number, coalesce(last, 0) + 1);
            ELSE
                PERFORM setval('twinspan.place', moment << 22 | p.number);
            END IF;
            RETURN CASE WHEN needed THEN twinspan.part(coalesce(q, current_query()), p.first, p.size) END;
        END LOOP;
        place := 0;
    END LOOP;
    RETURN NULL;
END
$$;

-- The text of the command that an event trigger fires for. stack is what called
-- the trigger: nothing when the client sent the command itself, else the
-- innermost statement comes first, quoted (spi.c, _SPI_error_callback; functions.c,
-- sql_exec_error_callback). It ends where a quote before a line's end is outside of strings, names
-- and comments: nothing that they hold can look like that.
CREATE OR REPLACE FUNCTION twinspan.ddl_text(stack text, tag text, conforming boolean, needed boolean) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    q text;
    n int;
    r record;
    found_text text;
BEGIN
    IF stack = '' THEN
        RETURN twinspan.pick(NULL, tag, conforming, false, needed);
    END IF;
    IF stack LIKE 'SQL statement "%' THEN
        q := substr(stack, length('SQL statement "') + 1);
        -- Without a quote before a line's end but the last, there is nothing to be mistaken.
        n := strpos(q, E'"\n');
        IF n > 0 AND strpos(substr(q, n + 1), E'"\n') = 0 AND q !~ '"$' THEN
            q := left(q, n - 1);
        ELSE
            SELECT s.first - 1 INTO n FROM twinspan.split(q, conforming, true) s WHERE s.size = 0;
            IF n IS NULL OR twinspan.part(q, n + 2, 20) !~ '^(\n(PL/|SQL (function|statement|expression) |extension script |COPY |while |processing |portal |unnamed portal).*)?$' THEN
                RETURN NULL;
            END IF;
            q := twinspan.part(q, 1, n);
        END IF;
        RETURN twinspan.pick(q, tag, conforming, true, needed);
    END IF;
    FOR r IN SELECT DISTINCT twinspan.part(p.prosrc, x.first, x.size) AS text
               FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'sql'
               CROSS JOIN LATERAL (SELECT s.*, row_number() OVER (ORDER BY s.first) AS number FROM twinspan.split(p.prosrc, conforming) s) x
              WHERE left(stack, length(p.proname) + 14) = 'SQL function "' || p.proname
                AND substr(stack, length(p.proname) + 15) ~ ('^" statement ' || x.number || '(\n|$)') AND twinspan.fits(x.mask, tag) LOOP
        IF found_text IS NOT NULL THEN
            RETURN NULL;
        END IF;
        found_text := r.text;
    END LOOP;
    RETURN found_text;
END
$$;
