package gate

// openTables lists, behind SELECT and columns of pg_class c and pg_namespace n, the tables that are not shut: whose
// trigger is not there, not whole (tgtype of CREATE TRIGGER's statement, no condition, no list of columns) or not
// enabled as ALWAYS. It is told by its function, for anybody may make a trigger of its name.
const openTables = `
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND g.tgfoid = pg_catalog.to_regprocedure('twinspan.gate()')
                    AND g.tgtype = CASE c.relkind WHEN 'f' THEN 30 ELSE 62 END AND g.tgqual IS NULL AND g.tgattr::pg_catalog.text = '' AND g.tgenabled = 'A')
              ORDER BY c.oid`

// openTablesMark is where gate.sql has openTables.
const openTablesMark = "/*open tables*/"

// EnsureSQL is one statement that shuts tables which came, or lost their gate, by
// a schema change: run in the transaction of the change, nobody finds them open.
const EnsureSQL = `SELECT twinspan.shut_gates()`
