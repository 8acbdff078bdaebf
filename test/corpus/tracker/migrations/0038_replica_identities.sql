-- as: transaction
ALTER TABLE audit_login REPLICA IDENTITY DEFAULT;
CREATE UNIQUE INDEX issue_assignees_identity ON issue_assignees (user_id, issue_id);
ALTER TABLE issue_assignees REPLICA IDENTITY USING INDEX issue_assignees_identity;
ALTER TABLE quotas REPLICA IDENTITY FULL;
INSERT INTO issue_assignees SELECT i, (SELECT id FROM users ORDER BY login LIMIT 1) FROM generate_series(1, 20) i;
UPDATE quotas SET seats = seats + 1;
