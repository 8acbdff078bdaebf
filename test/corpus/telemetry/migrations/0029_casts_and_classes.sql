CREATE CAST (text AS metrics.kind) WITH FUNCTION metrics.kind_of(text);
CREATE FUNCTION metrics.compare_slug(platform.slug, platform.slug) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN lower($1::text) < lower($2::text) THEN -1 WHEN lower($1::text) > lower($2::text) THEN 1 ELSE 0 END';
CREATE OPERATOR CLASS metrics.text_reverse FOR TYPE text USING btree AS OPERATOR 1 > , OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 bttextcmp(text, text);
COMMENT ON OPERATOR CLASS metrics.text_reverse USING btree IS 'the wrong way round';
DROP OPERATOR CLASS metrics.text_reverse USING btree;
DROP CAST (text AS metrics.kind);
DROP OPERATOR FAMILY IF EXISTS metrics.text_reverse USING btree;
