CREATE FUNCTION issue_state_rank(issue_state) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT CASE $1::text WHEN ''open'' THEN 1 WHEN ''in progress'' THEN 2 ELSE 9 END';
CREATE CAST (issue_state AS int) WITH FUNCTION issue_state_rank(issue_state) AS ASSIGNMENT;
CREATE FUNCTION near(position_on_earth, position_on_earth) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT abs($1.latitude - $2.latitude) < 1 AND abs($1.lon - $2.lon) < 1';
CREATE OPERATOR ~~~ (LEFTARG = position_on_earth, RIGHTARG = position_on_earth, FUNCTION = near, COMMUTATOR = ~~~, RESTRICT = contsel);
CREATE AGGREGATE all_tags (anycompatiblearray) (SFUNC = array_cat, STYPE = anycompatiblearray, INITCOND = '{}');
COMMENT ON OPERATOR ~~~ (position_on_earth, position_on_earth) IS 'within a degree';
