BEGIN;
ALTER TABLE audit_log RENAME TO audit_log_unpartitioned;
CREATE TABLE audit_log (LIKE audit_log_unpartitioned INCLUDING DEFAULTS) PARTITION BY LIST (operation);
CREATE TABLE audit_log_update PARTITION OF audit_log FOR VALUES IN ('UPDATE');
CREATE TABLE audit_log_others PARTITION OF audit_log DEFAULT;
INSERT INTO audit_log SELECT * FROM audit_log_unpartitioned;
DROP TABLE audit_log_unpartitioned;
COMMIT;
