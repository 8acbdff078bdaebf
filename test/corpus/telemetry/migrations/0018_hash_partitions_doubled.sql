BEGIN;
CREATE TABLE metrics.event_new (LIKE metrics.event INCLUDING ALL) PARTITION BY HASH (id);
DO $$ BEGIN FOR i IN 0..4 LOOP EXECUTE format('CREATE TABLE metrics.event_n%s PARTITION OF metrics.event_new FOR VALUES WITH (MODULUS 5, REMAINDER %s)', i, i); END LOOP; END $$;
LOCK TABLE metrics.event IN ACCESS EXCLUSIVE MODE;
INSERT INTO metrics.event_new SELECT * FROM metrics.event;
CREATE TRIGGER count_usage AFTER INSERT ON metrics.event_new REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing.count_usage();
DROP TABLE metrics.event;
ALTER TABLE metrics.event_new RENAME TO event;
COMMIT;
