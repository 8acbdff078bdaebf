DROP MATERIALIZED VIEW project_activity;
CREATE MATERIALIZED VIEW project_activity AS SELECT project_id, state, priority, count(*) AS n, max(updated_at) AS last FROM issues WHERE id <= 300 GROUP BY 1, 2, 3 WITH NO DATA;
REFRESH MATERIALIZED VIEW project_activity;
CREATE UNIQUE INDEX ON project_activity (project_id, state, priority);
ALTER MATERIALIZED VIEW project_activity RENAME COLUMN n TO number_of_issues;
REFRESH MATERIALIZED VIEW CONCURRENTLY project_activity;
