BEGIN;
DROP VIEW urgent_issues, open_issues;
CREATE VIEW open_issues AS SELECT id, project_id, number, title, priority, state, created_at FROM live_issues i WHERE state NOT IN ('closed', 'blocked');
CREATE VIEW urgent_issues AS SELECT o.id, o.title, p.key FROM open_issues o JOIN projects p ON p.id = o.project_id WHERE priority = 'high';
GRANT SELECT ON open_issues, urgent_issues TO tracker_viewer;
COMMIT;
