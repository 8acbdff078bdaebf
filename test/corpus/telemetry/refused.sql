-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
CREATE OR REPLACE PROCEDURE platform.in_c(internal) LANGUAGE c AS '$libdir/dict_snowball', 'dsnowball_init';

-- @ddl_temporary
CREATE TEMP TABLE "Upload" (line text);
DO $$ BEGIN EXECUTE 'CREATE TABLE platform.upload (LIKE "Upload" INCLUDING ALL, id serial)'; END $$;
