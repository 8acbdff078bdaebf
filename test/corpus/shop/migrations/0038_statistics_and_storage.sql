CREATE STATISTICS catalog.product_brand_tax (ndistinct, dependencies) ON brand_id, tax_class_id FROM catalog.product;
ALTER TABLE catalog.product ALTER COLUMN name SET STATISTICS 500, ALTER COLUMN description SET STORAGE EXTERNAL, SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE warehouse.stock_level RESET (fillfactor);
ALTER TABLE sales.order_item CLUSTER ON order_item_order_idx;
CLUSTER sales.order_item;
