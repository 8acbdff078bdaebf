-- as: transaction
ALTER TYPE catalog.product_state RENAME VALUE 'retired' TO 'discontinued';
ALTER TYPE catalog.product_state RENAME TO lifecycle;
ALTER TABLE catalog.product RENAME COLUMN state TO lifecycle;
ALTER INDEX catalog.product_active_idx RENAME TO product_sellable_idx;
