package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A table's owner may lack rights on his own table: others write it then. Its rows are copied and applied all the
// same where code of users runs at it, with the owner's rights, and what he lacks he lacks on the twin as well.
func TestOwnersWhoMayNotWriteTheirTables(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "lacks")
	a, b := p.A.Server.DSN("lacks"), p.B.Server.DSN("lacks")
	pgtest.Exec(t, a, `CREATE ROLE lacks_owner`, `CREATE ROLE lacks_writer`,
		`CREATE FUNCTION public.fine(v int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
			IF current_setting('session_replication_role') = 'replica' AND current_user <> 'lacks_owner' THEN RAISE EXCEPTION 'code ran as %', current_user; END IF;
			RETURN true; END $$`)
	rights := []string{"INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE", "ALL"}
	var tables []string
	// Those that are made early lack the right at the first copy, the others lose it while the link works.
	for _, when := range []string{"early", "late"} {
		for _, right := range rights {
			schema := when + "_" + strings.ToLower(right)
			table := schema + ".t"
			tables = append(tables, table)
			pgtest.Exec(t, a, `CREATE SCHEMA `+schema+`; GRANT USAGE ON SCHEMA `+schema+` TO lacks_owner`,
				`CREATE DOMAIN `+schema+`.d AS int CHECK (public.fine(VALUE))`,
				`CREATE TABLE `+table+` (id int PRIMARY KEY, v `+schema+`.d, w text); ALTER TABLE `+table+` OWNER TO lacks_owner`,
				`GRANT SELECT ON `+table+` TO lacks_writer; GRANT INSERT (id), UPDATE (w) ON `+table+` TO lacks_owner`,
				`INSERT INTO `+table+` SELECT i, i, 'first' FROM generate_series(1, 50) i`)
		}
	}
	revoke := func(when string) {
		t.Helper()
		for _, right := range rights {
			schema := when + "_" + strings.ToLower(right)
			pgtest.Exec(t, a, `SET ROLE lacks_owner; REVOKE `+right+` ON `+schema+`.t FROM lacks_owner; RESET ROLE`)
			// What is left for single columns stays so.
			pgtest.Exec(t, a, `GRANT UPDATE (v) ON `+schema+`.t TO lacks_owner`)
		}
	}
	work := func(n int) {
		t.Helper()
		for _, table := range tables {
			pgtest.Exec(t, a, fmt.Sprintf(`INSERT INTO %[1]s SELECT i, i, 'later' FROM generate_series(%[2]d, %[2]d + 20) i`, table, n),
				fmt.Sprintf(`UPDATE %s SET w = 'changed', v = v + 1 WHERE id %% 3 = %d %% 3`, table, n), fmt.Sprintf(`UPDATE %s SET id = -id WHERE id = %d`, table, n+7),
				fmt.Sprintf(`DELETE FROM %s WHERE id %% 10 = 4`, table))
		}
	}
	revoke("early")
	p.Create(t, "lacks", "lacks")
	p.WaitPhase(t, "lacks", api.Replicating)
	sameStructure(t, p, "lacks", "lacks")
	work(100)
	sameStructure(t, p, "lacks", "lacks")
	revoke("late")
	work(200)
	sameStructure(t, p, "lacks", "lacks")
	for _, table := range tables {
		pgtest.Exec(t, a, `BEGIN; TRUNCATE `+table+`; INSERT INTO `+table+` VALUES (1, 1, 'anew'), (2, 2, 'anew'); COMMIT`)
	}
	sameStructure(t, p, "lacks", "lacks")
	const acls = `SELECT c.relnamespace::regnamespace::text, coalesce(c.relacl::text, '-'), (SELECT coalesce(string_agg(a.attname || a.attacl::text, ' ' ORDER BY a.attnum), '') FROM pg_attribute a WHERE a.attrelid = c.oid)
		FROM pg_class c WHERE c.relname = 't' AND c.relkind = 'r' ORDER BY 1`
	if there, here := fmt.Sprint(pgtest.Query(t, a, acls)), fmt.Sprint(pgtest.Query(t, b, acls)); there != here {
		t.Errorf("rights on the primary\n%s\non the twin\n%s", there, here)
	}
	// A right that he has again stays his.
	for _, right := range rights {
		schema := "late_" + strings.ToLower(right)
		pgtest.Exec(t, a, `GRANT ALL ON `+schema+`.t TO lacks_owner`)
	}
	work(300)
	sameStructure(t, p, "lacks", "lacks")
	if n := pgtest.Query(t, b, `SELECT count(*) FROM pg_class c WHERE c.relname = 't' AND c.relnamespace::regnamespace::text LIKE 'late%' AND has_table_privilege('lacks_owner', c.oid, 'INSERT')
		AND has_table_privilege('lacks_owner', c.oid, 'DELETE')`)[0][0]; n != fmt.Sprint(len(rights)) {
		t.Errorf("he has his rights back on %s tables", n)
	}
}
