CREATE TABLE sales.orders_2024_05 PARTITION OF sales.orders FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
ALTER TABLE sales.orders_2024_05 OWNER TO shop_owner;
