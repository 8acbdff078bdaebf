SET ROLE shop_owner;
CREATE TABLE crm.wishlist (
    customer_id bigint NOT NULL REFERENCES crm.customer ON DELETE CASCADE,
    product_id bigint NOT NULL REFERENCES catalog.product ON DELETE CASCADE,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer_id, product_id)
);
CREATE INDEX ON crm.wishlist (product_id);
INSERT INTO crm.wishlist (customer_id, product_id) SELECT i, i FROM generate_series(1, 50) i;
