ALTER TABLE webhook_deliveries ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE webhook_deliveries ADD CONSTRAINT webhook_deliveries_pk PRIMARY KEY (id);
UPDATE webhook_deliveries SET status = 201 WHERE status = 200;
