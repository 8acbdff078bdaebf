-- as: string
BEGIN;
ALTER TABLE "users" ADD COLUMN "avatar_url" text;
INSERT INTO "schema_migrations" ("version") VALUES ('20240101000001');
COMMIT;
