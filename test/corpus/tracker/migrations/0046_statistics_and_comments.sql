CREATE STATISTICS issue_stats (mcv) ON state, priority FROM issues;
CREATE STATISTICS issue_title_stats ON (lower(title)), state FROM issues;
ALTER STATISTICS issue_stats SET STATISTICS 200;
COMMENT ON STATISTICS issue_stats IS 'they go together';
COMMENT ON INDEX issues_public_id IS 'for links';
COMMENT ON RULE soft_delete ON live_users IS 'users are kept';
COMMENT ON FUNCTION wiki.save(uuid, text) IS NULL;
COMMENT ON DOMAIN positive_int IS '1, 2, …';
ANALYZE issues;
