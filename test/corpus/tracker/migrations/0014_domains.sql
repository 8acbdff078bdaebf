ALTER DOMAIN ltree_path DROP CONSTRAINT ltree_path_check;
ALTER DOMAIN ltree_path ADD CONSTRAINT ltree_path_form CHECK (VALUE ~ '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$');
ALTER DOMAIN positive_int RENAME CONSTRAINT is_positive TO above_zero;
ALTER DOMAIN positive_int SET DEFAULT 10;
CREATE TABLE quotas (team_id int PRIMARY KEY REFERENCES teams, seats positive_int NOT NULL, storage positive_int);
INSERT INTO quotas (team_id) SELECT id FROM teams;
ALTER TABLE quotas ADD COLUMN extra positive_int;
