CREATE FUNCTION wiki.excerpt(p wiki.pages) RETURNS text LANGUAGE sql STABLE RETURN left((SELECT body FROM wiki.page_versions v WHERE v.page_id = ($1).id ORDER BY version DESC LIMIT 1), 20);
CREATE FUNCTION counters_total() RETURNS bigint LANGUAGE sql BEGIN ATOMIC
    SELECT sum(value) FROM counters;
END;
CREATE FUNCTION label_names(VARIADIC ids int[]) RETURNS SETOF citext LANGUAGE sql AS $$SELECT name FROM labels WHERE id = ANY (ids);$$;
CREATE PROCEDURE purge_sessions() LANGUAGE sql AS 'DELETE FROM sessions; DELETE FROM cache_entries WHERE key = ''none;''';
CALL purge_sessions();
