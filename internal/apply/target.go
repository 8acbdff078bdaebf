package apply

import (
	"context"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pg"
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
	triggers  bool        // some trigger or rule fires in replica role
	exclusion bool        // it has an exclusion constraint
	keys      []targetKey // what can tell rows apart, the best first
	columns   map[string]targetColumn
}

type targetColumn struct {
	column
	declaredID uint32 // its type, domains not resolved
	textOnly   bool
}

// targetKey is an index that tells any two rows apart, now and not only at commit:
// unique, immediate, valid, without a condition, of columns that are never NULL.
type targetKey []targetKeyColumn

type targetKeyColumn struct {
	number int // attnum
	equality
}

// equality is how two values of a column are compared: by an operator of an
// operator class, to whose type the server coerces them.
type equality struct {
	operator string // as OPERATOR(...), "" where there is none
	cast     string // what both operands are cast to, "" where that is not needed
	collate  string // the collation by which they are compared, "" for the column's
}

// known says whether there is an equality at all.
func (q equality) known() bool { return q.operator != "" }

// compare writes the comparison of two operands. Each must have the column's type,
// or the type below its domain.
func (q equality) compare(left, right string) string {
	return q.operand(left) + " " + q.operator + " " + q.operand(right) + q.collation()
}

func (q equality) operand(sql string) string {
	if q.cast == "" {
		return sql
	}
	return sql + "::" + q.cast
}

func (q equality) collation() string {
	if q.collate == "" {
		return ""
	}
	return " COLLATE " + q.collate
}

// tableSQL describes a table. In PostgreSQL 17 and later the identity columns of
// partitions belong to the partitioned table.
const tableSQL = `
SELECT c.oid, c.relkind, rn.nspname, rc.relname,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND t.tgname <> 'twinspan_gate')
       OR EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_enabled IN ('A', 'R')),
       EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid AND x.indisexclusion),
       rc.oid
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class rc ON rc.oid = CASE WHEN c.relispartition AND pg_catalog.current_setting('server_version_num')::int >= 170000
                                               THEN pg_catalog.pg_partition_root(c.oid)::oid ELSE c.oid END
  JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2`

// keysSQL lists the columns of a table's keys with the equality of the index's own
// operator class, which need not be the type's default one.
const keysSQL = `
SELECT k.indexrelid, a.attnum, pn.nspname, o.oprname,
       CASE WHEN it.typtype = 'p' THEN '' ELSE tn.nspname END, CASE WHEN it.typtype = 'p' THEN '' ELSE it.typname END,
       f.opcintype = a.atttypid,
       CASE WHEN k.indcollation[s.n] IN (0, a.attcollation) THEN '' ELSE ln.nspname END, coalesce(l.collname, '')
  FROM pg_catalog.pg_index k
 CROSS JOIN LATERAL pg_catalog.generate_series(0, k.indnkeyatts - 1) AS s (n)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.indrelid AND a.attnum = k.indkey[s.n]
  JOIN pg_catalog.pg_opclass f ON f.oid = k.indclass[s.n]
  JOIN pg_catalog.pg_am m ON m.oid = f.opcmethod AND m.amname = 'btree'
  JOIN pg_catalog.pg_type it ON it.oid = f.opcintype
  JOIN pg_catalog.pg_namespace tn ON tn.oid = it.typnamespace
  JOIN pg_catalog.pg_amop p ON p.amopfamily = f.opcfamily AND p.amoplefttype = f.opcintype AND p.amoprighttype = f.opcintype AND p.amopstrategy = 3
  JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr
  JOIN pg_catalog.pg_namespace pn ON pn.oid = o.oprnamespace
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = k.indcollation[s.n]
  LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
 WHERE k.indrelid = $1::pg_catalog.oid AND k.indisunique AND k.indimmediate AND k.indisvalid AND NOT k.indisexclusion
   AND k.indpred IS NULL AND k.indexprs IS NULL
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute n
                    WHERE n.attrelid = k.indrelid AND NOT n.attnotnull AND n.attnum = ANY ((k.indkey::int2[])[0:k.indnkeyatts - 1]))
 ORDER BY k.indisprimary DESC, k.indisreplident DESC, k.indnkeyatts, k.indexrelid, s.n`

// columnsSQL describes a table's columns. base resolves domains; part finds what a
// type is made of, and whether its binary form names the OIDs of such parts
// (array_send and record_send do). An equality is that of the type's default operator
// class, found as the server finds it (indexcmds.c, GetDefaultOpClass): also one for a
// type to which it can be coerced without a function (parse_coerce.c,
// IsBinarySafeCoercible: the pseudo-types with the OIDs 2249, 2277, 3500, 3831 and 4537,
// and casts WITHOUT FUNCTION). Values of arrays and composites can be compared only if
// those of all their parts can. The last columns tell from which types a cast leads to
// the column's type or its array: an explicit cast of text would call its function. The
// listed OIDs are those of the reg* types.
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
), class AS (
    SELECT f.opcintype, f.opcfamily, m.amname, CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END AS strategy
      FROM pg_catalog.pg_opclass f
      JOIN pg_catalog.pg_am m ON m.oid = f.opcmethod AND m.amname IN ('btree', 'hash')
     WHERE f.opcdefault
), kind AS (
    SELECT b.attnum, t.oid, n.nspname, t.typname, coalesce(an.nspname, '') AS array_schema, coalesce(at.typname, '') AS array_name,
           t.typtype, t.typarray, t.typreceive <> 0 AS receives, t.typelem <> 0 AND t.typlen = -1 AND t.typtype = 'b' AS is_array
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
              AND (p.inner_ AND p.oid >= 16384 OR p.oid IN (24, 2202, 2203, 2204, 2205, 2206, 4096, 4089, 3734, 3769, 4191)
                OR p.oid = ANY ($2::pg_catalog._oid)))),
       coalesce(eq.nspname, ''), coalesce(eq.oprname, ''), coalesce(eq.type_schema, ''), coalesce(eq.type_name, ''), coalesce(eq.same, true),
       EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = 25 AND x.casttarget = k.oid OR x.castsource = 1009 AND x.casttarget = k.typarray AND k.typarray <> 0),
       EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = 1043 AND x.casttarget = k.oid)
  FROM col c
  JOIN kind k ON k.attnum = c.attnum
  LEFT JOIN LATERAL (
       SELECT pn.nspname, o.oprname, f.opcintype = c.atttypid AS same,
              CASE WHEN it.typtype <> 'p' THEN tn.nspname END AS type_schema, CASE WHEN it.typtype <> 'p' THEN it.typname END AS type_name
         FROM class f
         JOIN pg_catalog.pg_type it ON it.oid = f.opcintype
         JOIN pg_catalog.pg_namespace tn ON tn.oid = it.typnamespace
         JOIN pg_catalog.pg_amop s ON s.amopfamily = f.opcfamily AND s.amoplefttype = f.opcintype AND s.amoprighttype = f.opcintype AND s.amopstrategy = f.strategy
         JOIN pg_catalog.pg_operator o ON o.oid = s.amopopr
         JOIN pg_catalog.pg_namespace pn ON pn.oid = o.oprnamespace
        WHERE (f.opcintype = k.oid OR f.opcintype = 2249 AND k.typtype = 'c' OR f.opcintype = 2277 AND k.is_array
               OR f.opcintype = 3500 AND k.typtype = 'e' OR f.opcintype = 3831 AND k.typtype = 'r' OR f.opcintype = 4537 AND k.typtype = 'm'
               OR EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = k.oid AND x.casttarget = f.opcintype AND x.castmethod = 'b' AND x.castcontext = 'i'))
          AND NOT EXISTS (
              SELECT FROM part p JOIN pg_catalog.pg_type t ON t.oid = p.oid
               WHERE p.attnum = c.attnum AND p.inner_ AND t.typtype = 'b' AND NOT (t.typelem <> 0 AND t.typlen = -1)
                 AND NOT EXISTS (SELECT FROM class g WHERE g.opcintype = t.oid OR EXISTS (SELECT FROM pg_catalog.pg_cast x
                                  WHERE x.castsource = t.oid AND x.casttarget = g.opcintype AND x.castmethod = 'b' AND x.castcontext = 'i')))
        ORDER BY f.amname, (f.opcintype = k.oid) DESC, it.typispreferred DESC, f.opcintype LIMIT 1) eq ON true
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
		oid: number(r[0]), rootOID: number(r[6]), kind: string(r[1]), root: sqlname.Table{Schema: string(r[2]), Name: string(r[3])},
		triggers: truth(r[4]), exclusion: truth(r[5]), columns: map[string]targetColumn{},
	}
	oid := string(r[0])
	if rows, err = e.ask(ctx, keysSQL, oid); err != nil {
		return nil, err
	}
	t.keys = keysOf(rows)
	rows, err = e.ask(ctx, columnsSQL, oid, e.newValues())
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		t.columns[string(r[1])] = columnOf(r)
	}
	return t, nil
}

// newValues are the types whose binary form can hold values that this server takes for
// others, as an array's text.
func (e *engine) newValues() string {
	version := e.s.raw.ParameterStatus("server_version") // as 15.18 (Debian), 18beta1
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(version)
	}
	major, err := strconv.Atoi(version[:digits])
	if err != nil {
		major = 0 // knows nothing new
	}
	list := pg.WithNewValues(major, e.a.SourceMajor)
	texts := make([]string, len(list))
	for i, oid := range list {
		texts[i] = strconv.FormatUint(uint64(oid), 10)
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// keysOf puts the columns of keys together.
func keysOf(rows [][]field) []targetKey {
	var list []targetKey
	for i, r := range rows {
		if i == 0 || string(r[0]) != string(rows[i-1][0]) {
			list = append(list, nil)
		}
		c := targetKeyColumn{number: int(number(r[1])), equality: equalityOf(r[2], r[3], r[4], r[5], r[6])}
		if len(r[7]) > 0 {
			c.collate = sqlname.Table{Schema: string(r[7]), Name: string(r[8])}.SQL()
		}
		list[len(list)-1] = append(list[len(list)-1], c)
	}
	return list
}

// equalityOf makes an equality of its operator, and of the type that the operator
// takes unless that is a pseudo-type, or the column's own.
func equalityOf(schema, operator, typeSchema, typeName, same field) equality {
	q := equality{}
	if len(operator) == 0 {
		return q
	}
	q.operator = "OPERATOR(" + sqlname.Quote(string(schema)) + "." + string(operator) + ")"
	if len(typeName) > 0 && !truth(same) {
		q.cast = sqlname.Table{Schema: string(typeSchema), Name: string(typeName)}.SQL()
	}
	return q
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
	c.domain = c.declaredID != c.typeID
	c.equality = c.below(equalityOf(r[14], r[15], r[16], r[17], r[18]))
	c.textFrom = textFrom(truth(r[19]), truth(r[20]))
	c.canon, c.foldable = canonOf(c.typeID, truth(r[12]))
	if !truth(r[6]) {
		c.foldable = false // equal under its collation is not equal in bytes
	}
	return c
}

// below completes an equality for a domain: operators for any enum, array or range
// take no domain over one.
func (c *column) below(q equality) equality {
	if q.known() && q.cast == "" && c.domain {
		q.cast = c.typ
	}
	return q
}

// textFrom chooses the type by which a value in text form is handed to the type's
// input function: a cast from a string type is one (manual, CREATE CAST, "I/O conversion
// casts") unless somebody made a cast of their own for just this type. None is chosen
// where there are such for both.
func textFrom(text, varchar bool) string {
	switch {
	case !text:
		return "text"
	case !varchar:
		return "varchar"
	}
	return ""
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
