BEGIN;
CREATE TABLE cold.prepared_table (id int PRIMARY KEY);
INSERT INTO cold.prepared_table SELECT generate_series(1, 10);
ALTER TABLE queue.schedule ADD COLUMN enabled boolean DEFAULT true;
PREPARE TRANSACTION 'schema change';
COMMIT PREPARED 'schema change';
