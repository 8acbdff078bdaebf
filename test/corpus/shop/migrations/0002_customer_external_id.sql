-- as: string
ALTER TABLE crm.customer ADD COLUMN external_id uuid NOT NULL DEFAULT gen_random_uuid();
CREATE UNIQUE INDEX customer_external_id_key ON crm.customer (external_id);
