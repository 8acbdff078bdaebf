-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
DO $$ BEGIN CREATE FUNCTION wiki.check_key() RETURNS trigger LANGUAGE c AS '$libdir/refint', 'check_primary_key'; END $$;

-- @ddl_tablespace
ALTER TABLE ALL IN TABLESPACE pg_default OWNED BY tracker SET TABLESPACE pg_default;
