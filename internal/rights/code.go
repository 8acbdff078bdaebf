package rights

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Table is what decides how a table is written and read.
type Table struct {
	Owner  string // the role whose rights count
	Forced bool   // its policies would bind the owner, too
	// Code says that planning a query on the table, or writing to it, may run functions of
	// users, or gives what the settings of the session say.
	Code bool
	Lent Lent // what the owner lacks for writing it, where Code
}

// Around puts statements of the owner's runner, which write the table's rows, between those that let him: his policies would bind him where they are
// forced, and he may lack rights. only is the table as SQL names it alone.
func (t Table) Around(only string, list []string) []string {
	if t.Forced {
		list = Unforced(only, list)
	}
	return t.Lent.Around(list)
}

// TableSQL describes tables, those of $1, an array of oids written as text: oid, owner,
// forced row security, and whether code of users runs at them. All of them must be
// tables. It plans no query on them and runs on 10 and later.
//
// part is the table with what is above and below it in its tree of partitions; kind, the
// types of its columns and whatever these are made of; object, everything that is
// evaluated when a row is written or a query planned, and what that hangs on by pg_depend.
// Functions count that were not made by initdb (FirstNormalObjectId, 16384), unless they are
// written in C and belong to an extension of a superuser's. What initdb made is recorded
// in no dependency, so whether it gives other values under other settings (is not
// immutable) is read from the expressions themselves, as are conversions by input and
// output functions and the like of CURRENT_DATE, which name no function.
const TableSQL = `
WITH RECURSIVE root AS (
    SELECT c.oid, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS forced FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::pg_catalog._oid)
), up AS (
    SELECT r.oid AS root, r.oid FROM root r
    UNION SELECT u.root, i.inhparent FROM up u JOIN pg_catalog.pg_class c ON c.oid = u.oid AND c.relispartition JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
), down AS (
    SELECT r.oid AS root, r.oid FROM root r
    UNION SELECT d.root, i.inhrelid FROM down d JOIN pg_catalog.pg_class c ON c.oid = d.oid AND c.relkind = 'p' JOIN pg_catalog.pg_inherits i ON i.inhparent = c.oid
), part AS (
    SELECT root, oid FROM up UNION SELECT root, oid FROM down
), kind AS (
    SELECT p.root, a.atttypid AS oid FROM part p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT k.root, x.oid
      FROM kind k
      JOIN pg_catalog.pg_type t ON t.oid = k.oid
     CROSS JOIN LATERAL (
           SELECT t.typbasetype WHERE t.typtype = 'd'
           UNION ALL SELECT t.typelem WHERE t.typelem <> 0
           UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
           UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE pg_catalog.to_jsonb(r) ->> 'rngmultitypid' = t.oid::pg_catalog.text AND t.typtype = 'm'
           UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
     ) x (oid)
), class AS (
    SELECT k.root, f.oid, f.opcfamily FROM kind k JOIN pg_catalog.pg_opclass f ON f.opcintype = k.oid AND f.opcdefault AND f.oid >= 16384
    UNION
    SELECT p.root, f.oid, f.opcfamily FROM part p JOIN pg_catalog.pg_index i ON i.indrelid = p.oid JOIN pg_catalog.pg_opclass f ON f.oid >= 16384 AND f.oid = ANY (i.indclass::pg_catalog._oid)
    UNION
    SELECT p.root, f.oid, f.opcfamily FROM part p JOIN pg_catalog.pg_partitioned_table i ON i.partrelid = p.oid JOIN pg_catalog.pg_opclass f ON f.oid >= 16384 AND f.oid = ANY (i.partclass::pg_catalog._oid)
    UNION
    SELECT k.root, f.oid, f.opcfamily FROM kind k JOIN pg_catalog.pg_range r ON r.rngtypid = k.oid JOIN pg_catalog.pg_opclass f ON f.oid >= 16384 AND f.oid = r.rngsubopc
), object AS (
    SELECT p.root, 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS class, p.oid FROM part p
    UNION SELECT p.root, 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM part p JOIN pg_catalog.pg_index i ON i.indrelid = p.oid
    UNION SELECT p.root, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid FROM part p JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = p.oid
    UNION SELECT p.root, 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid FROM part p JOIN pg_catalog.pg_constraint c ON c.conrelid = p.oid AND c.contype IN ('c', 'x')
    UNION SELECT k.root, 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid FROM kind k JOIN pg_catalog.pg_constraint c ON c.contypid = k.oid
    UNION SELECT k.root, 'pg_catalog.pg_type'::pg_catalog.regclass, k.oid FROM kind k WHERE k.oid >= 16384
    UNION SELECT p.root, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid FROM part p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0
             AND coalesce(pg_catalog.to_jsonb(a) ->> 'attgenerated', '') <> '' JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    UNION SELECT p.root, 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid FROM part p JOIN pg_catalog.pg_trigger t ON t.tgrelid = p.oid AND NOT t.tgisinternal
             AND t.tgenabled IN ('A', 'R') AND t.tgfoid IS DISTINCT FROM pg_catalog.to_regprocedure('twinspan.gate()')
    UNION SELECT p.root, 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid FROM part p JOIN pg_catalog.pg_rewrite w ON w.ev_class = p.oid AND w.ev_enabled IN ('A', 'R')
    UNION SELECT c.root, 'pg_catalog.pg_opclass'::pg_catalog.regclass, c.oid FROM class c
), needs AS (
    SELECT root, class, oid FROM object
    UNION
    SELECT n.root, d.refclassid, d.refobjid
      FROM needs n JOIN pg_catalog.pg_depend d ON d.classid = n.class AND d.objid = n.oid AND d.refobjid >= 16384
       AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass,
                            'pg_catalog.pg_opclass'::pg_catalog.regclass)
     WHERE n.class <> 'pg_catalog.pg_proc'::pg_catalog.regclass
), function AS (
    SELECT n.root, n.oid FROM needs n WHERE n.class = 'pg_catalog.pg_proc'::pg_catalog.regclass
    UNION SELECT c.root, a.amproc FROM class c JOIN pg_catalog.pg_amproc a ON a.amprocfamily = c.opcfamily
    UNION SELECT c.root, o.oprcode FROM class c JOIN pg_catalog.pg_amop a ON a.amopfamily = c.opcfamily JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
), expression AS (
    SELECT o.root, coalesce(c.conbin::pg_catalog.text, '') AS tree FROM object o JOIN pg_catalog.pg_constraint c ON c.oid = o.oid AND o.class = 'pg_catalog.pg_constraint'::pg_catalog.regclass
    UNION ALL SELECT o.root, coalesce(d.adbin::pg_catalog.text, '') FROM object o JOIN pg_catalog.pg_attrdef d ON d.oid = o.oid AND o.class = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    UNION ALL SELECT p.root, pg_catalog.concat(i.indexprs, i.indpred) FROM part p JOIN pg_catalog.pg_index i ON i.indrelid = p.oid
    UNION ALL SELECT p.root, pg_catalog.concat(i.partexprs) FROM part p JOIN pg_catalog.pg_partitioned_table i ON i.partrelid = p.oid
    UNION ALL SELECT p.root, pg_catalog.concat(pg_catalog.to_jsonb(s) ->> 'stxexprs') FROM part p JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = p.oid
)
SELECT r.oid, pg_catalog.pg_get_userbyid(r.relowner), r.forced,
       EXISTS (SELECT FROM function f JOIN pg_catalog.pg_proc p ON p.oid = f.oid AND p.oid >= 16384
                WHERE f.root = r.oid AND NOT (p.prolang IN (12, 13) AND EXISTS (
                      SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid JOIN pg_catalog.pg_roles o ON o.oid = e.extowner AND o.rolsuper
                       WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass)))
       OR EXISTS (SELECT FROM expression e WHERE e.root = r.oid AND (e.tree ~ '[{](COERCEVIAIO|SQLVALUEFUNCTION|XMLEXPR|NEXTVALUEEXPR|CURRENTOFEXPR)'
                  OR EXISTS (SELECT FROM pg_catalog.regexp_matches(e.tree, ':(?:opfuncid|funcid|hashfuncid|negfuncid) ([1-9][0-9]*)', 'g') m (ids)
                               JOIN pg_catalog.pg_proc p ON p.oid = m.ids[1]::pg_catalog.oid AND p.provolatile <> 'i')))
  FROM root r`

// Of describes tables by their oids. A table that is gone is not in the answer.
func Of(ctx context.Context, conn *pgx.Conn, tables []uint32) (map[uint32]Table, error) {
	all := map[uint32]Table{}
	for batch := range slices.Chunk(tables, 500) {
		if err := describe(ctx, conn, batch, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func describe(ctx context.Context, conn *pgx.Conn, tables []uint32, all map[uint32]Table) error {
	list := make([]string, len(tables))
	for i, t := range tables {
		list[i] = strconv.FormatUint(uint64(t), 10)
	}
	rows, err := conn.Query(ctx, TableSQL, "{"+strings.Join(list, ",")+"}")
	if err != nil {
		return pg.Classify(err, "look at what runs at tables")
	}
	var oid uint32
	var t Table
	var code []string
	_, err = pgx.ForEachRow(rows, []any{&oid, &t.Owner, &t.Forced, &t.Code}, func() error {
		all[oid] = t
		if t.Code {
			code = append(code, strconv.FormatUint(uint64(oid), 10))
		}
		return nil
	})
	if err != nil || len(code) == 0 {
		return pg.Classify(err, "look at what runs at tables")
	}
	return lend(ctx, conn, "{"+strings.Join(code, ",")+"}", all)
}
