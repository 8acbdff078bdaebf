DROP TABLE IF EXISTS boards, custom_fields, automations CASCADE;
DROP SEQUENCE IF EXISTS nothing_seq;
ALTER TABLE projects DROP COLUMN archived;
ALTER TABLE issues DROP CONSTRAINT blocked_has_parent;
DROP INDEX issues_title_lower;
DROP FUNCTION IF EXISTS label_names(int[]);
DROP AGGREGATE all_tags (anycompatiblearray);
