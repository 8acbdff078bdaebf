CREATE FUNCTION platform.notify_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('changes', TG_TABLE_NAME); INSERT INTO platform.audit (what) VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NULL; END $$;
CREATE TRIGGER "Notify Change" AFTER INSERT OR DELETE ON platform.users FOR EACH STATEMENT EXECUTE FUNCTION platform.notify_change();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON platform.tenants DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION platform.notify_change();
INSERT INTO platform.users (email) VALUES ('trigger@saas.example');
ALTER TABLE platform.users DISABLE TRIGGER "Notify Change";
INSERT INTO platform.users (email) VALUES ('silent@saas.example');
ALTER TABLE platform.users ENABLE REPLICA TRIGGER "Notify Change";
ALTER TABLE platform.users ENABLE TRIGGER "Notify Change";
