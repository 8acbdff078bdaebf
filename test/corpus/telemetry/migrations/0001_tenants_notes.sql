-- as: string
ALTER TABLE platform.tenants ADD COLUMN notes text;
