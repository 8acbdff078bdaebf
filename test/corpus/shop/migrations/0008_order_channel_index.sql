CREATE INDEX orders_channel_idx ON ONLY sales.orders (channel);
CREATE INDEX CONCURRENTLY orders_2024_01_channel_idx ON sales.orders_2024_01 (channel);
ALTER INDEX sales.orders_channel_idx ATTACH PARTITION sales.orders_2024_01_channel_idx;
