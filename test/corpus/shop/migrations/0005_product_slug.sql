-- as: transaction
SET LOCAL ROLE shop_owner;
ALTER TABLE catalog.product ADD COLUMN slug text;
UPDATE catalog.product SET slug = lower(replace(name, ' ', '-')) || '-' || id;
ALTER TABLE catalog.product ADD CONSTRAINT product_slug_key UNIQUE (slug);
