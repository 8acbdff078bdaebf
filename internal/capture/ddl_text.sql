-- How the text of the command that fires an event trigger is found
-- (docs/design/0006-schema-changes.md): PostgreSQL tells only the whole string that
-- was sent, or the call stack.

-- The statements of a string, in order: where each begins and ends, and a mask of
-- it, in lower case, with blanks for comments and x for everything quoted. Semicolons
-- in parentheses (rules) and in BEGIN ATOMIC bodies end no statement.
-- With a tag it ends at the first statement that fits it.
CREATE OR REPLACE FUNCTION twinspan.statements(q text, conforming boolean, tag text DEFAULT NULL) RETURNS TABLE (first int, last int, mask text)
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    pos int := 1;
    depth int := 0;
    m text[];
    rest text;
    token text;
    n int;
    opened int;
    nested text;
BEGIN
    first := 1;
    mask := '';
    LOOP
        rest := substr(q, pos);
        m := regexp_match(rest, '^([^''"$/();-]*)(\$(?:[[:alpha:]_\u0080-\uffff][[:alnum:]_\u0080-\uffff]*)?\$|--|/\*|.)?');
        mask := mask || m[1];
        token := m[2];
        pos := pos + length(m[1]) + coalesce(length(token), 0);
        rest := substr(q, pos);
        CASE
        WHEN token IS NULL THEN
            EXIT;
        WHEN token = '''' THEN
            IF conforming AND mask !~* '(^|[^[:alnum:]_$])e$' THEN
                n := length(substring(rest from '^(?:[^'']|'''')*''?'));
            ELSE
                n := length(substring(rest from '^(?:[^''\\]|''''|\\.)*''?'));
            END IF;
            pos := pos + n;
            mask := mask || 'x';
        WHEN token = '"' THEN
            pos := pos + length(substring(rest from '^(?:[^"]|"")*"?'));
            mask := mask || 'x';
        WHEN token = '--' THEN
            pos := pos + length(substring(rest from '^[^\n]*'));
            mask := mask || ' ';
        WHEN token = '/*' THEN
            opened := 1;
            WHILE opened > 0 LOOP
                nested := substring(rest from '^(?:[^*/]|\*(?!/)|/(?!\*))*(?:\*/|/\*)');
                IF nested IS NULL THEN
                    pos := length(q) + 1;
                    EXIT;
                END IF;
                opened := opened + CASE WHEN right(nested, 2) = '*/' THEN -1 ELSE 1 END;
                pos := pos + length(nested);
                rest := substr(q, pos);
            END LOOP;
            mask := mask || ' ';
        WHEN length(token) >= 2 AND mask ~ '[[:alnum:]_\u0080-\uffff]$' THEN
            -- A dollar within a name quotes nothing.
            mask := mask || '$';
            pos := pos - length(token) + 1;
        WHEN length(token) >= 2 THEN
            n := strpos(rest, token);
            pos := CASE n WHEN 0 THEN length(q) + 1 ELSE pos + n + length(token) - 1 END;
            mask := mask || 'x';
        WHEN token = ';' AND depth <= 0 AND (mask !~* '\mbegin\s+atomic\M'
                OR (SELECT count(*) FROM regexp_matches(mask, '\m(begin|case)\M', 'gi')) <= (SELECT count(*) FROM regexp_matches(mask, '\mend\M', 'gi'))) THEN
            last := pos - 2;
            mask := lower(btrim(mask, E' \t\n\r\f'));
            IF mask <> '' THEN
                RETURN NEXT;
                IF twinspan.fits(mask, tag) THEN
                    RETURN;
                END IF;
            END IF;
            first := pos;
            mask := '';
            depth := 0;
        ELSE
            depth := depth + CASE token WHEN '(' THEN 1 WHEN ')' THEN -1 ELSE 0 END;
            mask := mask || token;
        END CASE;
    END LOOP;
    last := length(q);
    mask := lower(btrim(mask, E' \t\n\r\f'));
    IF mask <> '' THEN
        RETURN NEXT;
    END IF;
END
$$;

-- Whether a statement, given by its mask, is one that fires event triggers with
-- this tag. Commands on what all databases share fire none.
CREATE OR REPLACE FUNCTION twinspan.fits(mask text, tag text) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
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

-- Where in the client's string this session is: the value that a session last took
-- from a sequence is its own, and stays when a transaction is rolled back.
CREATE SEQUENCE IF NOT EXISTS twinspan.place;

-- The statement of the given tag in a string that may hold several. Of several that
-- fit it is the next behind the one found before in the same string, which a client
-- sent at one moment, or a function executes again and again (nested).
CREATE OR REPLACE FUNCTION twinspan.pick(q text, tag text, conforming boolean, nested boolean) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    portion constant int := 4000;
    several boolean := strpos(rtrim(q, E'; \t\r\n'), ';') > 0;
    key bigint := ('x' || left(md5(statement_timestamp()::text || q), 8))::bit(32)::bigint << 30;
    place bigint := 0;
    start int;
    size int;
    s record;
BEGIN
    IF q IS NULL OR q = '' THEN
        RETURN NULL;
    END IF;
    IF several AND nested THEN
        place := coalesce(nullif(current_setting('twinspan.place', true), ''), '0')::bigint;
    ELSIF several THEN
        BEGIN
            place := currval('twinspan.place');
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            NULL;
        END;
    END IF;
    -- From the place on, then from the beginning; a portion first, for the string
    -- may be long and what is looked for is near.
    FOR start, size IN SELECT v.a, v.b FROM (VALUES (1, place - key, portion), (2, place - key, NULL), (3, 1, portion), (4, 1, NULL)) v (n, a, b)
                        WHERE v.n > 2 OR place > key AND place < key + (1 << 30) ORDER BY v.n LOOP
        SELECT x.first, x.last, x.mask INTO s FROM twinspan.statements(substr(q, start, coalesce(size, length(q))), conforming, tag) x ORDER BY x.first DESC LIMIT 1;
        CONTINUE WHEN s.first IS NULL OR NOT twinspan.fits(s.mask, tag) OR s.last >= size;
        IF several AND nested THEN
            PERFORM set_config('twinspan.place', (key + start + s.last)::text, true);
        ELSIF several THEN
            PERFORM setval('twinspan.place', key + start + s.last);
        END IF;
        RETURN substr(q, start + s.first - 1, s.last - s.first + 1);
    END LOOP;
    RETURN NULL;
END
$$;

-- The text of the command that an event trigger fires for. stack is what called
-- the trigger: nothing when the client sent the command itself, else the
-- innermost statement comes first, quoted (spi.c, _SPI_error_callback; functions.c,
-- sql_exec_error_callback).
CREATE OR REPLACE FUNCTION twinspan.ddl_text(stack text, tag text, conforming boolean) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS
$$
DECLARE
    m text[];
    q text;
    n int;
    r record;
    found_text text;
BEGIN
    IF stack = '' THEN
        RETURN twinspan.pick(current_query(), tag, conforming, false);
    END IF;
    IF stack LIKE 'SQL statement "%' THEN
        q := substr(stack, length('SQL statement "') + 1);
        SELECT min(strpos(q, E'"\n' || f)) INTO n
          FROM unnest(ARRAY['PL/', 'SQL function ', 'SQL statement "', 'SQL expression "', 'extension script ', 'COPY ', 'while ', 'processing ', 'portal ', 'unnamed portal']) f
         WHERE strpos(q, E'"\n' || f) > 0;
        q := CASE WHEN n IS NULL THEN left(q, -1) ELSE left(q, n - 1) END;
        RETURN twinspan.pick(q, tag, conforming, true);
    END IF;
    m := regexp_match(stack, '^SQL function "((?:[^"]|"(?! statement))*)" statement (\d+)');
    IF m IS NULL THEN
        RETURN NULL;
    END IF;
    FOR r IN SELECT DISTINCT substr(p.prosrc, x.first, x.last - x.first + 1) AS text
               FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'sql'
               CROSS JOIN LATERAL (SELECT s.*, row_number() OVER (ORDER BY s.first) AS number FROM twinspan.statements(p.prosrc, conforming) s) x
              WHERE p.proname = m[1] AND x.number = m[2]::int AND twinspan.fits(x.mask, tag) LOOP
        IF found_text IS NOT NULL THEN
            RETURN NULL;
        END IF;
        found_text := r.text;
    END LOOP;
    RETURN found_text;
END
$$;
