-- as: string
CREATE TABLE "attachments" ("id" bigserial primary key, "record_type" character varying NOT NULL, "record_id" bigint NOT NULL, "blob" bytea, "created_at" timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX "index_attachments_on_record" ON "attachments" ("record_type", "record_id");
INSERT INTO "attachments" ("record_type", "record_id", "blob") SELECT 'Issue', i, decode(md5(i::text), 'hex') FROM generate_series(1, 30) i;
INSERT INTO "schema_migrations" ("version") VALUES ('20240101000002');
