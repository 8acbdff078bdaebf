ALTER TABLE crm.customer ADD COLUMN marketing_consent boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN crm.customer.marketing_consent IS 'Opt-in; law since 2018';
