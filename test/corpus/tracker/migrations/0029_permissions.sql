ALTER TABLE notes OWNER TO tracker;
ALTER VIEW comments OWNER TO tracker;
GRANT tracker_viewer TO "Tracker-Bot";
REVOKE ALL ON wiki.drafts FROM tracker_editor;
GRANT SELECT, UPDATE (body) ON wiki.drafts TO tracker_editor WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION wiki.save(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA wiki TO tracker_editor;
ALTER DEFAULT PRIVILEGES IN SCHEMA wiki GRANT INSERT ON TABLES TO tracker_editor;
SET ROLE tracker; CREATE TABLE note_reactions (note_id bigint REFERENCES notes, emoji text, PRIMARY KEY (note_id, emoji)); GRANT SELECT ON note_reactions TO PUBLIC; RESET ROLE;
