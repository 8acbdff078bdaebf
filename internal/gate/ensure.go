package gate

// EnsureSQL is one statement that shuts tables which came, or lost their gate, by
// a schema change: run in the transaction of the change, nobody finds them open.
const EnsureSQL = `DO $gate$
DECLARE
    t oid;
BEGIN
    FOR t IN SELECT c.oid
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid AND g.tgname = 'twinspan_gate'
              WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
                AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND g.tgenabled IS DISTINCT FROM 'A' LOOP
        PERFORM twinspan.shut_gate(t);
    END LOOP;
END
$gate$`
