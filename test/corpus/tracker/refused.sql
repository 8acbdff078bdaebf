-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
DO $$ BEGIN CREATE FUNCTION wiki.snowball(internal) RETURNS internal LANGUAGE c STRICT AS '$libdir/dict_snowball', 'dsnowball_init'; END $$;

-- @ddl_temporary
BEGIN;
CREATE TEMP VIEW my_issues AS SELECT * FROM issues;
CREATE TABLE issue_copy (LIKE my_issues) PARTITION BY HASH (id);
COMMIT;
