CREATE TEXT SEARCH CONFIGURATION catalog.shop_english (COPY = english);
ALTER TEXT SEARCH CONFIGURATION catalog.shop_english ALTER MAPPING FOR hword, hword_part, word WITH unaccent, english_stem;
COMMENT ON TEXT SEARCH CONFIGURATION catalog.shop_english IS 'English without accents';
ALTER TABLE catalog.product_translation ADD COLUMN search tsvector;
UPDATE catalog.product_translation SET search = to_tsvector('catalog.shop_english', name);
CREATE INDEX product_translation_search_idx ON catalog.product_translation USING gin (search) WITH (fastupdate = off);
