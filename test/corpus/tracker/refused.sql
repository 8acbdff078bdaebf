-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
DO $$ BEGIN CREATE FUNCTION wiki.check_key() RETURNS trigger LANGUAGE c AS '$libdir/refint', 'check_primary_key'; END $$;

-- @ddl_temporary
BEGIN;
CREATE TEMP VIEW my_issues AS SELECT * FROM issues;
CREATE TABLE issue_copy (LIKE my_issues);
COMMIT;
