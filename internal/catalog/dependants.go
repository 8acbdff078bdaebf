package catalog

import (
	"context"

	"github.com/twinspan/twinspan/internal/pg"
)

// Dependants describes what elsewhere would go with the schema twinspan: a view of a table there, a column or a
// parameter of a table's type, which the database's owner, who may read them, can make.
func Dependants(ctx context.Context, q Querier) (names []string, err error) {
	err = q.QueryRow(ctx, `WITH here (class, oid) AS (
		SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'twinspan'
		UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = 'twinspan'
		UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'twinspan'
	), hangs AS (
		SELECT CASE WHEN w.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END AS class, coalesce(w.ev_class, d.objid) AS oid, CASE WHEN w.oid IS NULL THEN d.objsubid ELSE 0 END AS part
		  FROM here h JOIN pg_catalog.pg_depend d ON d.refclassid = h.class AND d.refobjid = h.oid AND d.deptype = 'n'
		  LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid
		 WHERE d.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_rewrite'::pg_catalog.regclass)
	)
	SELECT ARRAY(SELECT DISTINCT pg_catalog.pg_describe_object(g.class, g.oid, g.part) FROM hangs g WHERE NOT EXISTS (SELECT FROM here h WHERE h.class = g.class AND h.oid = g.oid) ORDER BY 1)`).Scan(&names)
	return names, pg.Classify(err, "look for what depends on the schema twinspan")
}
