DROP VIEW wiki.tree;
ALTER TABLE wiki.pages DROP CONSTRAINT pages_parent_id_fkey, DROP COLUMN parent_id CASCADE;
ALTER TABLE wiki.page_versions ADD COLUMN digest text GENERATED ALWAYS AS (md5(body)) STORED;
