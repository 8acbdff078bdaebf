-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
CREATE OR REPLACE PROCEDURE platform.in_c() LANGUAGE c AS '$libdir/refint', 'check_primary_key';

-- @ddl_temporary
CREATE TEMP TABLE "Upload" (line text);
DO $$ BEGIN EXECUTE 'CREATE TABLE platform.upload (LIKE "Upload" INCLUDING ALL, id serial)'; END $$;
