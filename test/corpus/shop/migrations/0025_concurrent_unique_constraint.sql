CREATE UNIQUE INDEX CONCURRENTLY brand_website_idx ON catalog.brand (website);
ALTER TABLE catalog.brand ADD CONSTRAINT brand_website_key UNIQUE USING INDEX brand_website_idx;
DROP INDEX CONCURRENTLY catalog.product_name_trgm_idx;
