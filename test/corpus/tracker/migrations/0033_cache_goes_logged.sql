TRUNCATE cache_entries;
INSERT INTO cache_entries SELECT 'key' || i, decode(md5(i::text), 'hex') FROM generate_series(1, 40) i;
ALTER TABLE cache_entries SET LOGGED;
UPDATE cache_entries SET value = value || '\x00' WHERE key < 'key3';
