-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
CREATE FUNCTION catalog.snowball(internal) RETURNS internal LANGUAGE c STRICT AS '$libdir/dict_snowball', 'dsnowball_init';

-- @ddl_temporary
BEGIN;
CREATE TEMP TABLE upload (line int, sku text);
CREATE TABLE warehouse.goods_upload (id int, line upload);
COMMIT;
