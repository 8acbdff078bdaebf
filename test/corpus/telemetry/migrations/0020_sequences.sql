ALTER SEQUENCE platform.global_id CACHE 1 NO CYCLE;
ALTER SEQUENCE platform.countdown MINVALUE -2000000;
CREATE SEQUENCE queue.ticket MAXVALUE 50 CYCLE;
SELECT nextval('queue.ticket') FROM generate_series(1, 60);
ALTER SEQUENCE queue.ticket RENAME TO ticket_no;
ALTER SEQUENCE queue.ticket_no SET SCHEMA billing;
GRANT SELECT ON SEQUENCE billing.ticket_no TO telemetry_reader;
