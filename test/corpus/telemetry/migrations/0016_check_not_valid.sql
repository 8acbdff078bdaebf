ALTER TABLE billing.account ADD CONSTRAINT balance_sane CHECK (balance > -1e9) NOT VALID, ADD CONSTRAINT vat_form CHECK (vat_id ~ '^[A-Z]{2}') NOT VALID;
ALTER TABLE billing.account VALIDATE CONSTRAINT balance_sane;
ALTER TABLE billing.account DROP CONSTRAINT IF EXISTS vat_form, DROP CONSTRAINT IF EXISTS never_was;
ALTER TABLE metrics.series ADD CONSTRAINT has_name CHECK (name <> '') NOT VALID;
ALTER TABLE metrics.series VALIDATE CONSTRAINT has_name;
