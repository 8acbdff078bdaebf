CREATE FUNCTION platform.inner_change(t text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE IF NOT EXISTS ' || t || ' (id int PRIMARY KEY, made timestamptz DEFAULT now())'; EXECUTE 'INSERT INTO ' || t || ' VALUES (1), (2) ON CONFLICT DO NOTHING'; END $$;
CREATE FUNCTION platform.outer_change() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM platform.inner_change('cold.nested_' || n) FROM generate_series(1, 3) n;
    BEGIN
        PERFORM platform.inner_change('cold.nested_1');
        ALTER TABLE cold.nested_1 ADD COLUMN extra int DEFAULT 4;
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        ALTER TABLE cold.nested_2 ADD COLUMN after_error text DEFAULT 'caught';
    END;
    RETURN 3;
END
$$;
SELECT platform.outer_change();
SELECT platform.outer_change() WHERE false;
