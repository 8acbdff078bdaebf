-- What the primary of a link refuses, and the code that it names.

-- @ddl_c_function
CREATE FUNCTION catalog.check_key() RETURNS trigger LANGUAGE c AS '$libdir/refint', 'check_primary_key';

-- @ddl_temporary
BEGIN;
CREATE TEMP TABLE upload (line int, sku text);
CREATE TABLE warehouse.goods_upload (LIKE upload);
COMMIT;
