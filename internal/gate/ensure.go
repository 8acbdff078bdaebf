package gate

// EnsureSQL is one statement that shuts tables which came, or lost their gate, by
// a schema change: run in the transaction of the change, nobody finds them open.
const EnsureSQL = `DO $gate$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind, g.tgenabled
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid AND g.tgname = 'twinspan_gate'
              WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
                AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND g.tgenabled IS DISTINCT FROM 'O' LOOP
        IF t.tgenabled IS NULL THEN
            EXECUTE format('CREATE TRIGGER twinspan_gate BEFORE INSERT OR UPDATE OR DELETE%s ON %s FOR EACH STATEMENT EXECUTE PROCEDURE twinspan.gate()',
                CASE t.relkind WHEN 'f' THEN '' ELSE ' OR TRUNCATE' END, t.name);
        ELSE
            EXECUTE format('ALTER TABLE %s ENABLE TRIGGER twinspan_gate', t.name);
        END IF;
    END LOOP;
END
$gate$`
