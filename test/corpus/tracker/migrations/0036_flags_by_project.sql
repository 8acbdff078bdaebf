BEGIN;
ALTER TABLE feature_flags DROP CONSTRAINT feature_flags_pkey;
ALTER TABLE feature_flags ADD COLUMN project_id int;
INSERT INTO feature_flags (name, enabled, rollout, project_id) SELECT f.name, f.enabled, f.rollout, p.id FROM feature_flags f, projects p WHERE p.id <= 2 AND f.project_id IS NULL;
DELETE FROM feature_flags WHERE project_id IS NULL;
ALTER TABLE feature_flags ADD PRIMARY KEY (name, project_id);
COMMIT;
