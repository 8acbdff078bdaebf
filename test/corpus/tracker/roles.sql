-- Roles belong to the server; each server that runs the tracker has them.
CREATE ROLE tracker LOGIN;
CREATE ROLE tracker_editor NOLOGIN;
CREATE ROLE tracker_viewer NOLOGIN;
CREATE ROLE "Tracker-Bot" LOGIN;
GRANT tracker_viewer TO tracker_editor;
