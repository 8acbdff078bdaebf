BEGIN;
ALTER SCHEMA "Media Store" RENAME TO media;
ALTER TABLE media.assets RENAME COLUMN "fileName" TO file_name;
ALTER TABLE media.assets RENAME COLUMN "uploadedAt" TO uploaded_at;
ALTER TABLE media."Asset Usage" RENAME TO asset_usage;
ALTER TABLE media.asset_usage RENAME COLUMN "used in" TO used_in;
COMMIT;
