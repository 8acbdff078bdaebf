CREATE FUNCTION platform.note_table() RETURNS void LANGUAGE sql AS $$
    CREATE TABLE cold.by_sql_function (id int PRIMARY KEY, note text);
    COMMENT ON TABLE cold.by_sql_function IS 'made; by SQL';
    GRANT SELECT ON cold.by_sql_function TO telemetry_reader;
$$;
SELECT platform.note_table();
INSERT INTO cold.by_sql_function VALUES (1, 'one');
DROP FUNCTION platform.note_table();
