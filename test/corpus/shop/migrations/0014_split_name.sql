BEGIN;
LOCK TABLE crm.customer IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE crm.customer ADD COLUMN first_name text, ADD COLUMN last_name text;
UPDATE crm.customer SET first_name = split_part(name, ' ', 1), last_name = split_part(name, ' ', 2);
CREATE FUNCTION crm.split_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.first_name := coalesce(NEW.first_name, split_part(NEW.name, ' ', 1));
    NEW.last_name := coalesce(NEW.last_name, split_part(NEW.name, ' ', 2));
    RETURN NEW;
END
$$;
CREATE TRIGGER split_name BEFORE INSERT OR UPDATE OF name ON crm.customer FOR EACH ROW EXECUTE FUNCTION crm.split_name();
COMMIT;
