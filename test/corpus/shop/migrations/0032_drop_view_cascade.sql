DROP VIEW catalog.active_product CASCADE;
CREATE VIEW catalog.active_product WITH (security_invoker = true) AS SELECT id, sku, slug, name, net_price, gross_price FROM catalog.product WHERE lifecycle = 'active';
GRANT SELECT ON catalog.active_product TO shop_readonly, shop_app;
