package rights

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Lent are the rights that a table's owner lacks for writing its rows. He can take his own rights on a table from himself: on the primary others
// write the rows then. Lend gives them for the moment of a statement, and Back takes them away behind it, in the same transaction, so that nobody sees him
// with them. They are empty where he lacks none.
//
// Nothing is given that he could not give himself. USAGE of a schema is not: code of his would reach functions there that he was shut out from.
type Lent struct{ Lend, Back []string }

// Around puts statements between those that lend and those that take back.
func (l Lent) Around(list []string) []string { return slices.Concat(l.Lend, list, l.Back) }

// LentSQL lists the statements of Lent of tables, those of $1, an array of oids written as text: oid, whether it takes back, and
// the statement, in order. It plans no query on them.
//
// What is granted on is locked first, for GRANT does not wait for another transaction that changes the same row of a catalog but fails (heapam.c,
// simple_heap_update); sessions that copy do so beside each other. A REVOKE from a table takes the rights on its columns as well.
const LentSQL = `
WITH t AS (
    SELECT c.oid, c.relowner AS owner, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) AS name, pg_catalog.format('%I.%I', n.nspname, c.relname) AS place
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::pg_catalog._oid)
), missing AS (
    SELECT t.oid, pg_catalog.string_agg(r.name, ', ' ORDER BY r.number) AS rights
      FROM t CROSS JOIN (VALUES (1, 'SELECT'), (2, 'INSERT'), (3, 'UPDATE'), (4, 'DELETE')) r (number, name)
     WHERE NOT pg_catalog.has_table_privilege(t.owner, t.oid, r.name) GROUP BY t.oid
), sql (oid, back, number, sql) AS (
    SELECT t.oid, false, 1, pg_catalog.format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', t.place) FROM t JOIN missing m USING (oid)
    UNION ALL SELECT t.oid, false, 2, pg_catalog.format('GRANT %s ON TABLE %s TO %s', m.rights, t.place, t.name) FROM t JOIN missing m USING (oid)
    UNION ALL SELECT t.oid, true, 1, pg_catalog.format('REVOKE %s ON TABLE %s FROM %s', m.rights, t.place, t.name) FROM t JOIN missing m USING (oid)
    UNION ALL SELECT t.oid, true, 2, pg_catalog.format('GRANT %s (%I) ON TABLE %s TO %s', x.privilege_type, a.attname, t.place, t.name)
      FROM t JOIN missing m USING (oid) JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
     WHERE x.grantee = t.owner AND x.privilege_type = ANY (pg_catalog.string_to_array(m.rights, ', '))
)
SELECT oid, back, sql FROM sql ORDER BY oid, back, number, sql`

// Add notes a statement of LentSQL.
func (l *Lent) Add(back bool, sql string) {
	if back {
		l.Back = append(l.Back, sql)
	} else {
		l.Lend = append(l.Lend, sql)
	}
}

// lend notes what the owners of tables lack; list is an array of their oids.
func lend(ctx context.Context, conn *pgx.Conn, list string, all map[uint32]Table) error {
	rows, err := conn.Query(ctx, LentSQL, list)
	if err != nil {
		return pg.Classify(err, "look what owners of tables lack")
	}
	var oid uint32
	var back bool
	var sql string
	_, err = pgx.ForEachRow(rows, []any{&oid, &back, &sql}, func() error {
		t := all[oid]
		t.Lent.Add(back, sql)
		all[oid] = t
		return nil
	})
	return pg.Classify(err, "look what owners of tables lack")
}
