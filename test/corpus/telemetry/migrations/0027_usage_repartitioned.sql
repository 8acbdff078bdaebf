BEGIN;
ALTER TABLE billing.usage RENAME TO usage_old;
CREATE TABLE billing.usage (tenant_id bigint NOT NULL, day date NOT NULL, samples bigint NOT NULL DEFAULT 0, bytes numeric NOT NULL DEFAULT 0, CONSTRAINT usage_key PRIMARY KEY (tenant_id, day));
INSERT INTO billing.usage SELECT tenant_id, day, samples, bytes FROM billing.usage_old;
DROP TABLE billing.usage_old;
ALTER TABLE billing.usage OWNER TO telemetry_admin;
COMMIT;
