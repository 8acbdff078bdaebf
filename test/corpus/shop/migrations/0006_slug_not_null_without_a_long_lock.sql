CREATE FUNCTION catalog.fill_slug() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.slug := coalesce(NEW.slug, 'p-' || NEW.id); RETURN NEW; END $$;
CREATE TRIGGER fill_slug BEFORE INSERT ON catalog.product FOR EACH ROW EXECUTE FUNCTION catalog.fill_slug();
ALTER TABLE catalog.product ADD CONSTRAINT slug_present CHECK (slug IS NOT NULL) NOT VALID;
ALTER TABLE catalog.product VALIDATE CONSTRAINT slug_present;
ALTER TABLE catalog.product ALTER COLUMN slug SET NOT NULL;
ALTER TABLE catalog.product DROP CONSTRAINT slug_present;
