BEGIN;
CREATE TABLE mail_queue_next (LIKE mail_queue INCLUDING ALL);
ALTER TABLE mail_queue_next ADD COLUMN priority int NOT NULL DEFAULT 0;
INSERT INTO mail_queue_next SELECT * FROM mail_queue;
ALTER SEQUENCE mail_queue_id_seq OWNED BY mail_queue_next.id;
DROP TABLE mail_queue;
ALTER TABLE mail_queue_next RENAME TO mail_queue;
ALTER TABLE mail_queue RENAME CONSTRAINT mail_queue_next_pkey TO mail_queue_pkey;
COMMIT;
