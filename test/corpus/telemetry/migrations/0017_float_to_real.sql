-- as: transaction
DROP VIEW tenant_acme.noisy_devices;
ALTER TABLE tenant_acme.alert_rules ALTER COLUMN threshold TYPE real, ALTER COLUMN severity TYPE smallint, ALTER COLUMN id TYPE bigint;
ALTER TABLE tenant_acme.devices ALTER COLUMN tags TYPE varchar(30)[] USING tags::varchar(30)[];
CREATE VIEW tenant_acme.noisy_devices AS SELECT d.id, d.name, d.firmware, count(*) AS sensors FROM tenant_acme.devices d JOIN tenant_acme.sensors s ON s.device_id = d.id GROUP BY d.id;
