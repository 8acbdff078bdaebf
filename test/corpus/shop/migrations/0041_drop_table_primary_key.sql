BEGIN;
ALTER TABLE crm.wishlist DROP CONSTRAINT wishlist_pkey;
ALTER TABLE crm.wishlist ADD COLUMN id uuid DEFAULT gen_random_uuid() NOT NULL;
ALTER TABLE crm.wishlist ADD PRIMARY KEY (id), ADD CONSTRAINT wishlist_once UNIQUE (customer_id, product_id);
COMMIT;
