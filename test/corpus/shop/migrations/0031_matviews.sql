REFRESH MATERIALIZED VIEW catalog.bestseller;
CREATE UNIQUE INDEX bestseller_key ON catalog.bestseller (product_id);
REFRESH MATERIALIZED VIEW CONCURRENTLY catalog.bestseller;
CREATE MATERIALIZED VIEW catalog.rating AS SELECT id, CASE WHEN rating_count > 0 THEN rating_sum::numeric / rating_count END AS stars FROM catalog.product WHERE id <= 50;
ALTER MATERIALIZED VIEW catalog.rating OWNER TO shop_owner;
