CREATE OR REPLACE VIEW catalog.active_product AS SELECT id, sku, name, gross_price, slug FROM catalog.product WHERE lifecycle = 'active';
CREATE VIEW catalog.cheap_product AS SELECT * FROM catalog.active_product WHERE gross_price < 100 WITH LOCAL CHECK OPTION;
COMMENT ON VIEW catalog.cheap_product IS $$Don't; "really" -- don't$$;
GRANT SELECT ON catalog.cheap_product TO PUBLIC;
