-- as: transaction
ALTER TABLE metrics.sample ADD COLUMN nonce int DEFAULT (random() * 1000000)::int;
ALTER TABLE billing.usage ADD COLUMN uid uuid NOT NULL DEFAULT gen_random_uuid();
