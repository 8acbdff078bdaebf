ALTER TABLE billing.invoice ALTER COLUMN id SET GENERATED ALWAYS, ALTER COLUMN id SET INCREMENT 1;
INSERT INTO billing.invoice (tenant_id, month, total) SELECT id, '2024-02-01', 20 FROM platform.tenants;
INSERT INTO billing.invoice (id, tenant_id, total) OVERRIDING SYSTEM VALUE SELECT 1, id, 1 FROM platform.tenants LIMIT 1;
