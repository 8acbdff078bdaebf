CREATE OR REPLACE FUNCTION audit.log_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = archive, audit, pg_temp AS $$
BEGIN
    INSERT INTO change_log (op, new_row) VALUES (left(TG_OP, 1), CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$$;
ALTER TABLE audit.change_log SET SCHEMA archive;
DROP FUNCTION accounting.add_currency_table(text);
