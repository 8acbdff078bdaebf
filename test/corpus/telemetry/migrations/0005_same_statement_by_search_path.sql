SET search_path = tenant_acme; ALTER TABLE sensors ADD COLUMN active boolean DEFAULT true; CREATE INDEX ON sensors (unit);
SET search_path = tenant_globex; ALTER TABLE sensors ADD COLUMN active boolean DEFAULT true; CREATE INDEX ON sensors (unit);
SET search_path = "tenant_Über uns"; ALTER TABLE sensors ADD COLUMN active boolean DEFAULT true; CREATE INDEX ON sensors (unit);
