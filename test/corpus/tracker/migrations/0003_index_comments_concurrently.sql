CREATE INDEX CONCURRENTLY IF NOT EXISTS index_comments_on_author ON comments USING btree (author_id);
INSERT INTO schema_migrations (version) VALUES ('20240101000003');
