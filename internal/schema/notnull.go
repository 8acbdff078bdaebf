package schema

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// firstNamedNotNull is the server_version_num from which on NOT NULL is a constraint of a table, with a name, and
// may be said of a column that the table only inherits.
const firstNamedNotNull = 180000

// adapted writes entries as the server that a session leads to reads them.
func adapted(ctx context.Context, conn *pgx.Conn) (func(e Entry) Text, error) {
	var version int
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return nil, pg.Classify(err, "look at the server's version")
	}
	return func(e Entry) Text {
		if version < firstNamedNotNull {
			e.SQL = plainNotNull(e)
		}
		return cleansed(e)
	}, nil
}

// plainNotNull writes what pg_dump of version 18 says of columns that may not be NULL as older servers read it. That says so
// also where it has read an older server: a column that is inherited, and is not NULL in the child alone, is
// none of those that CREATE TABLE lists.
func plainNotNull(e Entry) Text {
	sql := string(e.SQL)
	list := words(sql)
	open := slices.IndexFunc(list, func(w word) bool { return w.text == "(" })
	if e.Kind != "TABLE" && e.Kind != "FOREIGN TABLE" || open < 3 || !strings.EqualFold(list[0].text, "CREATE") {
		return e.SQL
	}
	first := slices.IndexFunc(list[:open], func(w word) bool { return strings.EqualFold(w.text, "TABLE") }) + 1
	items, end := itemsOf(sql, list, open)
	over := end // where the statement ends
	for ; over < len(list) && list[over].text != ";"; over++ {
	}
	if first == 0 || over >= len(list) {
		return e.SQL
	}
	var kept []string
	var after strings.Builder
	changed := false
	for _, i := range items {
		text, column := withoutInheritance(i.text), notNullOf(i.text)
		changed = changed || text != i.text || column != ""
		if column == "" {
			kept = append(kept, text)
			continue
		}
		after.WriteString("\nALTER TABLE ONLY " + strings.TrimSpace(sql[list[first].start:list[open].start]) + " ALTER COLUMN " + column + " SET NOT NULL;")
	}
	if !changed {
		return e.SQL
	}
	behind := list[over].start + 1
	return Text(sql[:list[open].start+1] + "\n    " + strings.Join(kept, ",\n    ") + "\n" + sql[list[end].start:behind] + after.String() + sql[behind:])
}

// notNullOf is the column of an item of CREATE TABLE that says nothing but that it is not NULL; "" of others.
func notNullOf(item string) string {
	list := words(item)
	if len(list) > 2 && strings.EqualFold(list[0].text, "CONSTRAINT") {
		list = list[2:]
	}
	if len(list) < 3 || !strings.EqualFold(list[0].text, "NOT") || !strings.EqualFold(list[1].text, "NULL") {
		return ""
	}
	return list[2].text
}

// withoutInheritance takes NO INHERIT away from NOT NULL in the declaration of a column.
func withoutInheritance(item string) string {
	list := words(item)
	for i := 0; i+3 < len(list); i++ {
		if slices.EqualFunc(list[i:i+4], []string{"NOT", "NULL", "NO", "INHERIT"}, func(w word, text string) bool { return strings.EqualFold(w.text, text) }) {
			end := list[i+3].start + len(list[i+3].text)
			return item[:list[i+1].start+len(list[i+1].text)] + item[end:]
		}
	}
	return item
}
