DROP TABLE cold.nested_1, cold.nested_2, cold.nested_3, cold.moved CASCADE;
DROP FUNCTION platform.outer_change(), platform.inner_change(text);
DROP TYPE platform.point_in_time;
DROP ROUTINE metrics.kind_of(text);
DROP INDEX IF EXISTS metrics.sample_others_value, metrics.no_such_index;
DROP TABLE IF EXISTS metrics.explained, metrics.empty_copy CASCADE;
