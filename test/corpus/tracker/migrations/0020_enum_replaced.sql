BEGIN;
ALTER TYPE wiki.page_kind RENAME TO page_kind_old;
CREATE TYPE wiki.page_kind AS ENUM ('page', 'template', 'blog');
ALTER TABLE wiki.pages ALTER COLUMN kind DROP DEFAULT, ALTER COLUMN kind TYPE wiki.page_kind USING kind::text::wiki.page_kind, ALTER COLUMN kind SET DEFAULT 'page';
DROP TYPE wiki.page_kind_old;
INSERT INTO wiki.pages (space_id, kind, path, title) VALUES (1, 'blog', 'blog.first', 'First post');
COMMIT;
