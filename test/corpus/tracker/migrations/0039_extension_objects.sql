CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA wiki;
CREATE INDEX CONCURRENTLY pages_title_trgm ON wiki.pages USING gin (title wiki.gin_trgm_ops);
ALTER TABLE users ADD COLUMN bio wiki.time_slot;
DROP EXTENSION IF EXISTS unaccent;
