package apply

import (
	"context"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// firstNormalOID is where OIDs of objects made by users begin; types below are the
// same on every server (src/include/access/transam.h, FirstNormalObjectId).
const firstNormalOID = 16384

// target is a table as the secondary's catalogues have it.
type target struct {
	oid       uint32
	kind      string // pg_class.relkind
	rootOID   uint32
	root      sqlname.Table
	triggers  bool  // some trigger or rule fires in replica role
	exclusion bool  // it has an exclusion constraint
	key       []int // attnums of a key that is unique, immediate and not null
	columns   map[string]targetColumn
}

type targetColumn struct {
	column
	declaredID uint32 // its type, domains not resolved
	textOnly   bool
}

// tableSQL describes a table. In PostgreSQL 17 and later the identity columns of
// partitions belong to the partitioned table.
const tableSQL = `
SELECT c.oid, c.relkind, rn.nspname, rc.relname,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND t.tgname <> 'twinspan_gate')
       OR EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_enabled IN ('A', 'R')),
       EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid AND x.indisexclusion),
       (SELECT pg_catalog.array_to_string((k.indkey::int2[])[0:k.indnkeyatts - 1], ' ')
          FROM pg_catalog.pg_index k
         WHERE k.indrelid = c.oid AND k.indisunique AND k.indimmediate AND k.indisvalid AND NOT k.indisexclusion
           AND k.indpred IS NULL AND k.indexprs IS NULL
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = c.oid AND NOT a.attnotnull AND a.attnum = ANY ((k.indkey::int2[])[0:k.indnkeyatts - 1]))
         ORDER BY k.indisprimary DESC, k.indisreplident DESC, k.indnkeyatts, k.indexrelid LIMIT 1),
       rc.oid
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class rc ON rc.oid = CASE WHEN c.relispartition AND pg_catalog.current_setting('server_version_num')::int >= 170000
                                               THEN pg_catalog.pg_partition_root(c.oid)::oid ELSE c.oid END
  JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2`

// columnsSQL describes a table's columns. base resolves domains; part finds what a
// type is made of, and whether its binary form names the OIDs of such parts
// (array_send and record_send do). An equality is that of the default operator
// class, also for types that are only coercible to the class's: enums, ranges and
// arrays to the pseudo-types (OIDs 3500, 3831, 4537, 2277), varchar to text, cidr
// to inet. The listed OIDs are those of the reg* types.
const columnsSQL = `
WITH RECURSIVE col AS (
    SELECT a.attnum, a.attname, a.atttypid, a.attgenerated <> '' AS generated, a.attidentity = 'a' AS always, a.attnotnull,
           coalesce(l.collisdeterministic, true) AS deterministic
      FROM pg_catalog.pg_attribute a
      LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
     WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
), base AS (
    SELECT attnum, atttypid AS oid FROM col
    UNION ALL
    SELECT b.attnum, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid AND t.typtype = 'd'
), part AS (
    SELECT attnum, atttypid AS oid, false AS inner_ FROM col
    UNION
    SELECT p.attnum, x.oid, x.inner_
      FROM part p
      JOIN pg_catalog.pg_type t ON t.oid = p.oid
     CROSS JOIN LATERAL (
           SELECT t.typbasetype, p.inner_ WHERE t.typtype = 'd'
           UNION ALL SELECT t.typelem, true WHERE t.typtype = 'b' AND t.typelem <> 0 AND t.typlen = -1
           UNION ALL SELECT r.rngsubtype, p.inner_ FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
           UNION ALL SELECT r.rngtypid, p.inner_ FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid
           UNION ALL SELECT a.atttypid, true FROM pg_catalog.pg_attribute a
                      WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
     ) x (oid, inner_)
), kind AS (
    SELECT b.attnum, t.oid, n.nspname, t.typname, coalesce(an.nspname, '') AS array_schema, coalesce(at.typname, '') AS array_name,
           t.typtype, t.typreceive <> 0 AS receives,
           CASE WHEN t.typtype = 'e' THEN 3500::pg_catalog.oid
                WHEN t.typtype = 'r' THEN 3831
                WHEN t.typtype = 'm' THEN 4537
                WHEN t.typtype = 'c' THEN 0
                WHEN t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 AND t.typtype = 'b' THEN 2277
                WHEN t.oid = 1043 THEN 25
                WHEN t.oid = 650 THEN 869
                ELSE t.oid END AS compared,
           CASE WHEN t.typelem <> 0 AND t.typlen = -1 AND t.typtype = 'b' THEN t.typelem ELSE 0 END AS element
      FROM base b
      JOIN pg_catalog.pg_type t ON t.oid = b.oid AND t.typtype <> 'd'
      JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_catalog.pg_type at ON at.oid = t.typarray
      LEFT JOIN pg_catalog.pg_namespace an ON an.oid = at.typnamespace
)
SELECT c.attnum, c.attname, c.atttypid, c.generated, c.always, c.attnotnull, c.deterministic,
       k.oid, k.nspname, k.typname, k.array_schema, k.array_name, k.typtype = 'e',
       (NOT k.receives OR EXISTS (
           SELECT FROM part p WHERE p.attnum = c.attnum
              AND (p.inner_ AND p.oid >= 16384 OR p.oid IN (24, 2202, 2203, 2204, 2205, 2206, 4096, 4089, 3734, 3769, 4191)))),
       coalesce(eq.nspname, ''), coalesce(eq.oprname, '')
  FROM col c
  JOIN kind k ON k.attnum = c.attnum
  LEFT JOIN LATERAL (
       SELECT pn.nspname, o.oprname
         FROM pg_catalog.pg_opclass f
         JOIN pg_catalog.pg_am m ON m.oid = f.opcmethod AND m.amname IN ('btree', 'hash')
         JOIN pg_catalog.pg_amop s ON s.amopfamily = f.opcfamily AND s.amoplefttype = f.opcintype AND s.amoprighttype = f.opcintype
                                  AND s.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END
         JOIN pg_catalog.pg_operator o ON o.oid = s.amopopr
         JOIN pg_catalog.pg_namespace pn ON pn.oid = o.oprnamespace
        WHERE f.opcdefault AND f.opcintype = k.compared
          AND (k.element = 0 OR EXISTS (SELECT FROM pg_catalog.pg_opclass ef JOIN pg_catalog.pg_type et ON et.oid = k.element
                WHERE ef.opcdefault AND (ef.opcintype = et.oid OR et.typtype = 'e' OR et.typtype IN ('r', 'm') OR et.oid IN (1043, 650))))
        ORDER BY m.amname LIMIT 1) eq ON true
 ORDER BY c.attnum`

// look reads the catalogues' description of a table; nil when there is none. It
// runs within the target transaction, if one is open.
func (e *engine) look(ctx context.Context, name sqlname.Table) (*target, error) {
	rows, err := e.ask(ctx, tableSQL, name.Schema, name.Name)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	r := rows[0]
	t := &target{
		oid: number(r[0]), rootOID: number(r[7]), kind: string(r[1]), root: sqlname.Table{Schema: string(r[2]), Name: string(r[3])},
		triggers: truth(r[4]), exclusion: truth(r[5]), columns: map[string]targetColumn{},
	}
	t.key = numbers(r[6])
	rows, err = e.ask(ctx, columnsSQL, string(r[0]))
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		t.columns[string(r[1])] = columnOf(r)
	}
	return t, nil
}

func columnOf(r []field) targetColumn {
	c := targetColumn{declaredID: number(r[2]), textOnly: truth(r[13])}
	c.number = int(number(r[0]))
	c.generated, c.always, c.notNull = truth(r[3]), truth(r[4]), truth(r[5])
	c.typeID = number(r[7])
	c.typ = sqlname.Table{Schema: string(r[8]), Name: string(r[9])}.SQL()
	if len(r[11]) > 0 {
		c.array = sqlname.Table{Schema: string(r[10]), Name: string(r[11])}.SQL()
	}
	if len(r[15]) > 0 {
		c.equal = "OPERATOR(" + sqlname.Quote(string(r[14])) + "." + string(r[15]) + ")"
	}
	c.canon, c.foldable = canonOf(c.typeID, truth(r[12]))
	if !truth(r[6]) {
		c.foldable = false // equal under its collation is not equal in bytes
	}
	return c
}

// canonOf says when two values of a type are equal; false when not from bytes
// alone (intervals, ranges and arrays of such, json, extensions' types).
func canonOf(typeID uint32, enum bool) (group.Canon, bool) {
	switch typeID {
	case 16, 17, 18, 19, 20, 21, 23, 25, 26, 28, 29, // bool bytea "char" name int8 int2 int4 text oid xid cid
		650, 774, 790, 829, 869, // cidr macaddr8 money macaddr inet
		1043, 1082, 1083, 1114, 1184, 1266, // varchar date time timestamp timestamptz timetz
		1560, 1562, 2950, 3220, 5069: // bit varbit uuid pg_lsn xid8
		return group.Exact, true
	case 1700:
		return group.Numeric, true
	case 700:
		return group.Float4, true
	case 701:
		return group.Float8, true
	case 1042:
		return group.Blank, true
	}
	return group.Exact, enum
}

// ask runs one of a few queries in an exchange of its own; nothing else may be in flight.
func (e *engine) ask(ctx context.Context, sql string, args ...string) ([][]field, error) {
	var rows [][]field
	x := e.s.begin()
	st := e.questions[sql]
	if st == nil {
		st = &statement{sql: sql}
		e.questions[sql] = st
	}
	e.s.query(st, &rows, args...)
	e.s.sync()
	f, err := e.s.wait(ctx, x)
	if err != nil {
		return nil, err
	}
	if f != nil {
		return nil, serverProblem(f.err, "read the secondary's catalogues")
	}
	return rows, nil
}

func truth(f field) bool { return string(f) == "t" }

func number(f field) uint32 {
	n, err := strconv.ParseUint(string(f), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

func numbers(f field) []int {
	var list []int
	for n := range strings.FieldsSeq(string(f)) {
		list = append(list, int(number(field(n))))
	}
	return list
}
