CREATE OR REPLACE FUNCTION catalog.search_products(query text) RETURNS SETOF catalog.product LANGUAGE sql STABLE PARALLEL SAFE ROWS 20 AS $$
    SELECT * FROM catalog.product
     WHERE search @@ websearch_to_tsquery('english', query) /* ; not the end */
     ORDER BY net_price, id LIMIT 20;
$$;
CREATE FUNCTION sales.average_order(since date DEFAULT '2024-01-01', OUT orders bigint, OUT average numeric) LANGUAGE sql STABLE
    AS 'SELECT count(*), avg(net_total) FROM sales.orders WHERE placed_on >= since';
CREATE AGGREGATE sales.product_of (numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
ALTER FUNCTION sales.average_order(date) OWNER TO shop_owner;
REVOKE EXECUTE ON FUNCTION sales.average_order(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sales.average_order(date) TO shop_accounting;
