CREATE TABLE sales.customer_report AS
    SELECT c.id AS customer_id, c.email, count(o.id) AS orders, sum(o.net_total) AS total, random() AS lot
      FROM crm.customer c LEFT JOIN sales.orders o ON o.customer_id = c.id GROUP BY c.id, c.email;
ALTER TABLE sales.customer_report ADD PRIMARY KEY (customer_id);
