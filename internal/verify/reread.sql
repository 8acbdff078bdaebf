-- Reads each of two texts, prints it, and does the same with what was printed: the
-- results are the text and three printed forms of each, eight in all. How a text is read
-- is said by a letter: r an expression over a table's row, w a trigger's condition, s an
-- expression without columns, d a domain's condition, q a query, u what follows a rule's table,
-- f what follows a function's name, k a partition key. It runs with its owner's rights.
CREATE FUNCTION /*schema*/.twinspan_forms(letter text, first text, second text, relation text, more text) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $function$
DECLARE
    forms text[] := '{}';
    form text;
    name text;
    routine pg_catalog.regprocedure;
BEGIN
    FOR turn IN 0..1 LOOP
        form := CASE turn WHEN 0 THEN first ELSE second END;
        forms := forms || form;
        form := CASE letter
            WHEN 'r' THEN 'SELECT (' || form || ') AS x FROM ONLY ' || relation
            WHEN 'w' THEN 'SELECT (' || form || ') AS x FROM ONLY ' || relation || ' old, ONLY ' || relation || ' new'
            WHEN 's' THEN 'SELECT (' || form || ') AS x'
            WHEN 'd' THEN 'SELECT (' || form || ') AS x FROM (SELECT NULL::' || more || ' AS value) d'
            ELSE form END;
        FOR again IN 1..3 LOOP
            name := 'x' || turn || again;
            CASE letter
            WHEN 'u' THEN
                EXECUTE 'CREATE TABLE /*schema*/.' || name || ' (LIKE ' || relation || ')';
                EXECUTE 'CREATE RULE x AS ON ' || more || ' TO /*schema*/.' || name || form;
                SELECT pg_catalog.pg_get_ruledef(r.oid) INTO form FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ('/*schema*/.' || name)::pg_catalog.regclass;
                form := substr(form, strpos(form, ' TO /*schema*/.' || name) + length(' TO /*schema*/.' || name));
            WHEN 'f' THEN
                -- Its parameters may be named after it.
                name := substr(more, strpos(more, ' ') + 1);
                EXECUTE 'CREATE ' || split_part(more, ' ', 1) || ' /*schema*/.' || name || form;
                SELECT p.oid::pg_catalog.regprocedure, pg_catalog.pg_get_functiondef(p.oid) INTO routine, form
                  FROM pg_catalog.pg_proc p WHERE pg_catalog.quote_ident(p.proname) = name AND p.pronamespace = '/*schema*/'::pg_catalog.regnamespace;
                form := substr(form, strpos(form, ' /*schema*/.' || name || '(') + length(' /*schema*/.' || name));
                EXECUTE 'DROP ROUTINE ' || routine;
            WHEN 'k' THEN
                EXECUTE 'CREATE TABLE /*schema*/.' || name || ' (LIKE ' || relation || ') PARTITION BY ' || form;
                form := pg_catalog.pg_get_partkeydef(('/*schema*/.' || name)::pg_catalog.regclass);
            ELSE
                EXECUTE 'CREATE VIEW /*schema*/.' || name || ' AS ' || form;
                form := pg_catalog.pg_get_viewdef(('/*schema*/.' || name)::pg_catalog.regclass);
            END CASE;
            forms := forms || form;
        END LOOP;
    END LOOP;
    RETURN forms;
END
$function$
