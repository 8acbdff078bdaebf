package catalog

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// olderSQL says that schema changes are captured by functions of an earlier release, which would send
// what is granted and revoked here to the twin. They are replaced once the twin's agent understands today's.
const olderSQL = `pg_catalog.to_regprocedure('twinspan.on_ddl_capture()') IS NOT NULL AND pg_catalog.to_regprocedure('twinspan.capture_command(text,boolean,boolean)') IS NULL`

// excessSQL lists what takes rights in the schema twinspan away that nobody else should have. Default
// privileges (ALTER DEFAULT PRIVILEGES) give them as an object is made, also to the database's owner, who may read its
// tables and no more.
const excessSQL = `
SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', x.what, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END) AS command
  FROM (SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure), a.grantee, false
          FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid,
               pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a WHERE n.nspname = 'twinspan' AND a.grantee <> p.proowner
        UNION ALL
        SELECT pg_catalog.format('%s twinspan.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname), a.grantee, a.privilege_type = 'SELECT' AND NOT a.is_grantable
          FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid, pg_catalog.aclexplode(c.relacl) a WHERE n.nspname = 'twinspan' AND a.grantee <> c.relowner
        UNION ALL
        SELECT 'SCHEMA twinspan', a.grantee, a.privilege_type = 'USAGE' AND NOT a.is_grantable
          FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE n.nspname = 'twinspan' AND a.grantee <> n.nspowner) x (what, grantee, reads)
 WHERE NOT (x.reads AND EXISTS (SELECT FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() AND d.datdba = x.grantee))`

// PrivateSQL takes what is in the schema twinspan from everybody but its owner, all but what the database's
// owner may read. It belongs to the very statements that make something there: the database's owner can see the schema, and many
// functions act with the agent's rights. Triggers fire without that right.
const PrivateSQL = `;
DO $private$
DECLARE
    r record;
BEGIN
    IF ` + olderSQL + ` THEN
        RETURN;
    END IF;
    FOR r IN ` + excessSQL + ` LOOP
        IF pg_catalog.to_regprocedure('twinspan.run_own(text)') IS NOT NULL THEN
            PERFORM twinspan.run_own(r.command);
        ELSE
            EXECUTE r.command;
        END IF;
    END LOOP;
END
$private$`

// readableSQL lists what is to be granted and revoked: the database's owner, unless a
// superuser, may read every table of the schema, but for those of what was lost while they may hold
// rows. Whoever was the owner before may not.
const readableSQL = `
WITH n AS (
    SELECT oid, nspowner, nspacl FROM pg_catalog.pg_namespace WHERE nspname = 'twinspan'
), o AS (
    SELECT r.oid, r.rolname FROM n, pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
     WHERE d.datname = pg_catalog.current_database() AND NOT r.rolsuper AND r.oid <> n.nspowner
), lost AS (
    SELECT EXISTS (SELECT FROM twinspan.lost WHERE NOT discarded) OR EXISTS (SELECT FROM twinspan.lost_change) OR EXISTS (SELECT FROM twinspan.lost_key) AS pending
), t AS (
    SELECT pg_catalog.format('%s twinspan.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname) AS what, c.relacl, lost.pending AND c.relname LIKE 'lost\_%' AS hidden
      FROM n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'S'), lost
), work (rank, command) AS (
    SELECT 1, x.command FROM (` + excessSQL + `) x
    UNION ALL SELECT 2, pg_catalog.format('REVOKE ALL ON %s FROM %I', t.what, o.rolname)
      FROM t, o WHERE t.hidden AND EXISTS (SELECT FROM pg_catalog.aclexplode(t.relacl) a WHERE a.grantee = o.oid)
    UNION ALL SELECT 3, pg_catalog.format('GRANT SELECT ON %s TO %I', t.what, o.rolname)
      FROM t, o WHERE NOT t.hidden AND (SELECT coalesce(pg_catalog.string_agg(a.privilege_type || a.is_grantable, ''), '') FROM pg_catalog.aclexplode(t.relacl) a WHERE a.grantee = o.oid) <> 'SELECTfalse'
    UNION ALL SELECT 4, pg_catalog.format('GRANT USAGE ON SCHEMA twinspan TO %I', o.rolname)
      FROM n, o WHERE (SELECT coalesce(pg_catalog.string_agg(a.privilege_type || a.is_grantable, ''), '') FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee = o.oid) <> 'USAGEfalse'
)
SELECT command FROM work ORDER BY rank, command`

// Readable lets the database's owner read the tables of the schema twinspan, so that pg_dump
// works for whom it worked without a link; what was lost is hidden as long as it may hold rows. Run it
// with the agent's rights, in a session that passes the gate. It does nothing where all is as it should be.
func Readable(ctx context.Context, on pg.Beginner) error {
	return pg.InTx(ctx, on, func(tx pgx.Tx) error {
		var older bool
		if err := tx.QueryRow(ctx, `SELECT `+olderSQL).Scan(&older); err != nil || older {
			return pg.Classify(err, "see who can read the schema twinspan")
		}
		rows, err := tx.Query(ctx, readableSQL)
		if err != nil {
			return pg.Classify(err, "see who can read the schema twinspan")
		}
		commands, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(commands) == 0 {
			return pg.Classify(err, "see who can read the schema twinspan")
		}
		// Nobody sees the schema before its functions are nobody else's.
		if _, err := tx.Exec(ctx, PrivateSQL); err != nil {
			return pg.Classify(err, "keep the functions of the schema twinspan")
		}
		var own bool
		if err := tx.QueryRow(ctx, `SELECT pg_catalog.to_regprocedure('twinspan.run_own(text)') IS NOT NULL`).Scan(&own); err != nil {
			return pg.Classify(err, "see who can read the schema twinspan")
		}
		for _, command := range commands {
			if own {
				_, err = tx.Exec(ctx, `SELECT twinspan.run_own($1)`, command)
			} else {
				_, err = tx.Exec(ctx, command)
			}
			if err != nil {
				return pg.Classify(err, "let the database's owner read the schema twinspan")
			}
		}
		return nil
	})
}
