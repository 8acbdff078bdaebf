CREATE OR REPLACE VIEW live_users AS SELECT id, email, login, display_name, locale FROM users WHERE deleted_at IS NULL;
CREATE OR REPLACE VIEW project_stats (id, key, open, total) AS SELECT p.id, p.key, count(i.id) FILTER (WHERE i.state = 'open'), count(i.id) FROM projects p LEFT JOIN live_issues i ON i.project_id = p.id GROUP BY p.id;
ALTER VIEW project_stats ALTER COLUMN total SET DEFAULT 0;
CREATE OR REPLACE RULE soft_delete AS ON DELETE TO live_users DO INSTEAD (UPDATE users SET deleted_at = now() WHERE id = OLD.id; DELETE FROM sessions WHERE sid = OLD.login);
