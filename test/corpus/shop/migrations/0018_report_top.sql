SELECT customer_id, total INTO sales.top_customer FROM sales.customer_report ORDER BY total DESC NULLS LAST, customer_id LIMIT 20;
CREATE TABLE IF NOT EXISTS sales.customer_report AS SELECT 1 AS never;
