ALTER TABLE billing.usage ADD COLUMN noted timestamptz DEFAULT now(), ADD COLUMN noted_by name DEFAULT current_user;
ALTER TABLE ONLY billing.usage ALTER COLUMN noted DROP DEFAULT;
