package catalog

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// olderSQL says that schema changes are captured by functions of an earlier release, which would send
// what is granted and revoked here to the twin. They are replaced once the twin's agent understands today's.
const olderSQL = `pg_catalog.to_regprocedure('twinspan.on_ddl_capture()') IS NOT NULL AND pg_catalog.to_regprocedure('twinspan.capture_command(text,boolean,boolean)') IS NULL`

// PrivateSQL takes the functions of the schema twinspan from everybody but their owner. It belongs
// to the very statements that make functions there: the database's owner can see the schema, and many
// of them act with the agent's rights. Triggers fire without that right.
const PrivateSQL = `;
DO $private$
DECLARE
    f text;
BEGIN
    IF ` + olderSQL + ` THEN
        RETURN;
    END IF;
    FOR f IN SELECT p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = 'twinspan' AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a WHERE a.grantee = 0) LOOP
        IF pg_catalog.to_regprocedure('twinspan.run_own(text)') IS NOT NULL THEN
            PERFORM twinspan.run_own(pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f));
        ELSE
            EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
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
    SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, lost.pending AND c.relname LIKE 'lost\_%' AS hidden
      FROM n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'S'), lost
), grantee AS (
    SELECT t.*, a.grantee FROM t, pg_catalog.aclexplode(t.relacl) a WHERE a.grantee <> t.relowner AND a.grantee <> 0
), work (rank, command) AS (
    SELECT DISTINCT 1, pg_catalog.format('REVOKE ALL ON %s twinspan.%I FROM %I', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname, pg_catalog.pg_get_userbyid(grantee))
      FROM grantee WHERE hidden OR grantee NOT IN (SELECT oid FROM o)
    UNION SELECT 2, pg_catalog.format('REVOKE ALL ON SCHEMA twinspan FROM %I', pg_catalog.pg_get_userbyid(a.grantee))
      FROM n, pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee NOT IN (0, n.nspowner) AND a.grantee NOT IN (SELECT oid FROM o)
    UNION SELECT 3, pg_catalog.format('GRANT SELECT ON %s twinspan.%I TO %I', CASE t.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, t.relname, o.rolname)
      FROM t, o WHERE NOT t.hidden AND NOT EXISTS (SELECT FROM grantee g WHERE g.oid = t.oid AND g.grantee = o.oid)
    UNION SELECT 4, pg_catalog.format('GRANT USAGE ON SCHEMA twinspan TO %I', o.rolname)
      FROM n, o WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee = o.oid)
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
