BEGIN;
CREATE TABLE cold."Über uns devices" AS SELECT * FROM "tenant_Über uns".devices;
DROP SCHEMA "tenant_Über uns" CASCADE;
UPDATE platform.tenants SET suspended = now() WHERE slug = 'Über uns';
COMMIT;
