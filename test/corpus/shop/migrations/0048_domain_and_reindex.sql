ALTER DOMAIN catalog.sku ADD CONSTRAINT sku_length CHECK (length(VALUE) >= 3) NOT VALID;
ALTER DOMAIN catalog.sku VALIDATE CONSTRAINT sku_length;
ALTER DOMAIN catalog.sku RENAME TO stock_keeping_unit;
REINDEX TABLE CONCURRENTLY crm.customer;
ALTER EXTENSION unaccent SET SCHEMA catalog;
