package schema

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// child is a table that inherits, and whose columns stand in another order than CREATE
// TABLE ... INHERITS would give them: it got its parents later, or they got columns. pg_dump
// writes such a table as if it had always had its parents, so that what names no columns,
// as INSERT without a list, would mean something else on the twin.
type child struct {
	name    sqlname.Table
	columns []childColumn // in their order
	parents []sqlname.Table
}

type childColumn struct {
	name      string
	declare   string // type and collation
	generated string // how its value is generated; "" for others
	local     bool   // the table has declared it, too
	defaulted bool
}

// childrenSQL lists the columns of tables that inherit and of those that they inherit
// from, both in order.
const childrenSQL = `
WITH inherits AS (
    SELECT i.inhrelid, i.inhparent, i.inhseqno
      FROM pg_catalog.pg_inherits i
      JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r' AND NOT c.relispartition
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'twinspan'
)
SELECT c.oid, n.nspname, c.relname, a.attname, a.attislocal,
       format_type(a.atttypid, a.atttypmod)
       || coalesce((SELECT ' COLLATE ' || quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
                     WHERE co.oid = a.attcollation AND co.oid <> t.typcollation), ''),
       coalesce((SELECT ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || CASE to_jsonb(a)->>'attgenerated' WHEN 's' THEN ') STORED' ELSE ') VIRTUAL' END
                      FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND to_jsonb(a)->>'attgenerated' IN ('s', 'v')), ''),
       a.atthasdef AND coalesce(to_jsonb(a)->>'attgenerated', '') = ''
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE c.oid IN (SELECT inhrelid FROM inherits UNION SELECT inhparent FROM inherits)
 ORDER BY c.oid, a.attnum`

// readChildren finds the tables whose columns stand otherwise than a dump would put them.
func (c *catalog) readChildren(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, childrenSQL)
	if err != nil {
		return err
	}
	tables := map[uint32]*child{}
	var oid, parent uint32
	var name sqlname.Table
	var column childColumn
	if _, err = pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name, &column.name, &column.local, &column.declare, &column.generated, &column.defaulted}, func() error {
		if tables[oid] == nil {
			tables[oid] = &child{name: name}
		}
		tables[oid].columns = append(tables[oid].columns, column)
		return nil
	}); err != nil || len(tables) == 0 {
		return err
	}
	if rows, err = conn.Query(ctx, `SELECT i.inhrelid, i.inhparent, n.nspname, p.relname
		FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
		JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r' AND NOT c.relispartition ORDER BY 1, i.inhseqno`); err != nil {
		return err
	}
	parents := map[uint32][]uint32{}
	if _, err = pgx.ForEachRow(rows, []any{&oid, &parent, &name.Schema, &name.Name}, func() error {
		if t := tables[oid]; t != nil {
			t.parents = append(t.parents, name)
			parents[oid] = append(parents[oid], parent)
		}
		return nil
	}); err != nil {
		return err
	}
	c.children = map[uint32]*child{}
	for oid, t := range tables {
		var inherited [][]childColumn
		for _, p := range parents[oid] {
			if above := tables[p]; above != nil {
				inherited = append(inherited, above.columns)
			}
		}
		if len(parents[oid]) > 0 && !slices.Equal(names(t.columns), natural(inherited, t.columns)) {
			c.children[oid] = t
		}
	}
	return nil
}

func names(columns []childColumn) []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name
	}
	return list
}

// natural is the order that CREATE TABLE ... INHERITS gives (tablecmds.c, MergeAttributes):
// the parents' columns, then the table's own.
func natural(parents [][]childColumn, own []childColumn) []string {
	var order []string
	for _, columns := range append(slices.Clone(parents), own) {
		for _, c := range columns {
			if !slices.Contains(order, c.name) {
				order = append(order, c.name)
			}
		}
	}
	return order
}

// create rewrites pg_dump's text of the table: it is created with all of its columns, in
// order, and then becomes what it is to its parents. Text of another shape stays as it is.
func (t *child) create(sql string) string {
	list := words(sql)
	open := slices.IndexFunc(list, func(w word) bool { return w.text == "(" })
	if open < 2 || !strings.EqualFold(list[0].text, "CREATE") {
		return sql
	}
	items, end := itemsOf(sql, list, open)
	at := slices.IndexFunc(list, func(w word) bool { return strings.EqualFold(w.text, "INHERITS") })
	if at != end+1 || at+1 >= len(list) || list[at+1].text != "(" {
		return sql
	}
	_, last := itemsOf(sql, list, at+1)
	if last == len(list) {
		return sql
	}
	written, rest := map[string]string{}, []string(nil)
	for _, i := range items {
		switch name, ok := columnOf(i.text); {
		case i.text == "":
		case ok:
			written[name] = i.text
		default:
			rest = append(rest, i.text)
		}
	}
	var parts []string
	for _, c := range t.columns {
		text, ok := written[c.name]
		if !ok {
			text = sqlname.Quote(c.name) + " " + c.declare
		}
		// pg_dump leaves to the parents how a column is generated.
		if c.generated != "" && !slices.ContainsFunc(words(text), func(w word) bool { return strings.EqualFold(w.text, "GENERATED") }) {
			text += c.generated
		}
		parts = append(parts, text)
	}
	return sql[:list[open].start+1] + "\n    " + strings.Join(append(parts, rest...), ",\n    ") + "\n)" + sql[list[last].start+1:] + "\n" + t.adopt()
}

// columnOf is the name of the column that an item of CREATE TABLE declares.
func columnOf(item string) (string, bool) {
	end := 0
	if item != "" {
		end = skipToken(item, 0)
	}
	name := item[:end]
	if strings.HasPrefix(name, `"`) {
		return strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`), true
	}
	return name, name != "" && !slices.Contains([]string{"CONSTRAINT", "CHECK", "NOT", "LIKE"}, name)
}

// adopt makes the table a child of its parents: what they have of conditions, and of
// defaults that the child has too, it gets before. What it has from them alone is then
// marked as such, so that dropping it there drops it here; only a superuser can do that.
func (t *child) adopt() string {
	var inherited, defaulted, parents []string
	for _, c := range t.columns {
		if !c.local {
			inherited = append(inherited, sqlname.Literal(c.name))
		}
		if c.defaulted {
			defaulted = append(defaulted, sqlname.Literal(c.name))
		}
	}
	for _, p := range t.parents {
		parents = append(parents, sqlname.Literal(p.SQL()))
	}
	return strings.NewReplacer("/*child*/", sqlname.Literal(t.name.SQL()), "/*parents*/", strings.Join(parents, ", "),
		"/*inherited*/", strings.Join(inherited, ", "), "/*defaulted*/", strings.Join(defaulted, ", ")).Replace(`DO $twinspan$
DECLARE
    child regclass := /*child*/;
    parent regclass;
    inherited name[] := ARRAY[/*inherited*/]::name[];
    conditions name[] := '{}';
    r record;
BEGIN
    FOREACH parent IN ARRAY ARRAY[/*parents*/]::regclass[] LOOP
        FOR r IN SELECT a.attname FROM pg_attribute a JOIN pg_attribute c ON c.attrelid = child AND c.attname = a.attname AND NOT c.attnotnull
                  WHERE a.attrelid = parent AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull LOOP
            EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I SET NOT NULL', child, r.attname);
        END LOOP;
        FOR r IN SELECT a.attname, pg_get_expr(d.adbin, d.adrelid) AS value FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                   JOIN pg_attribute c ON c.attrelid = child AND c.attname = a.attname AND NOT c.atthasdef
                  WHERE a.attrelid = parent AND a.attname = ANY (ARRAY[/*defaulted*/]::name[]) LOOP
            EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %s', child, r.attname, r.value);
        END LOOP;
        FOR r IN SELECT o.conname, pg_get_constraintdef(o.oid) AS condition FROM pg_constraint o WHERE o.conrelid = parent AND o.contype = 'c' AND NOT o.connoinherit
                    AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = child AND c.conname = o.conname) LOOP
            EXECUTE format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s', child, r.conname, r.condition);
            conditions := conditions || r.conname;
        END LOOP;
        EXECUTE format('ALTER TABLE ONLY %s INHERIT %s', child, parent);
    END LOOP;
    BEGIN
        UPDATE pg_catalog.pg_attribute SET attislocal = false WHERE attrelid = child AND attname = ANY (inherited);
        UPDATE pg_catalog.pg_constraint SET conislocal = false WHERE conrelid = child AND (contype = 'c' AND conname = ANY (conditions)
            OR contype = 'n' AND conkey[1] IN (SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = child AND attname = ANY (inherited)));
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
END
$twinspan$;
`)
}
