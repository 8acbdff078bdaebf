package schema

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	links "github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// former is what links of the database have noted of what they changed.
type former struct {
	identities []identity
	modes      []mode
	limit      *int // of connections; nil where no link has changed it
}

// identity is a table's replica identity, as pg_class has it.
type identity struct {
	table      sqlname.Table
	was, index string
}

// mode is that of a trigger, rule or event trigger: A for always, R for replicas.
type mode struct {
	kind  string // TRIGGER, RULE, EVENT TRIGGER
	table sqlname.Table
	name  string
	was   string
}

// formerTables are those tables of the schema twinspan that are there and hold what they
// should: nobody but an agent or a superuser made them, and to read them runs nobody's code.
const formerTables = `
SELECT coalesce(pg_catalog.array_agg(c.relname::text), '{}')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
 WHERE n.nspname = 'twinspan' AND c.relname IN ('identity', 'trigger_mode', 'gate_limit') AND c.relkind = 'r' AND NOT c.relrowsecurity
   AND (r.rolsuper OR r.rolname = current_user) AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid))`

// A mode that somebody has given since stays, as when the side takes writes (gate.PutBack).
const formerModes = `
SELECT 'TRIGGER', n.nspname, c.relname, t.tgname, k.mode::text
  FROM ONLY twinspan.trigger_mode k JOIN pg_catalog.pg_trigger t ON k.class = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = k.object AND t.tgenabled = 'O'
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL
SELECT 'RULE', n.nspname, c.relname, w.rulename, k.mode::text
  FROM ONLY twinspan.trigger_mode k JOIN pg_catalog.pg_rewrite w ON k.class = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = k.object AND w.ev_enabled = 'O'
  JOIN pg_catalog.pg_class c ON c.oid = w.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL
SELECT 'EVENT TRIGGER', '', '', e.evtname, k.mode::text
  FROM ONLY twinspan.trigger_mode k JOIN pg_catalog.pg_event_trigger e ON k.class = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND e.oid = k.object AND e.evtenabled = 'O'
ORDER BY 1, 2, 3, 4`

const formerIdentities = `
SELECT n.nspname, c.relname, i.was::text, coalesce((SELECT x.relname::text FROM pg_catalog.pg_class x JOIN pg_catalog.pg_index y ON y.indexrelid = x.oid
         WHERE y.indrelid = c.oid AND x.relname = i.was_index), '')
  FROM ONLY twinspan.identity i JOIN pg_catalog.pg_class c ON c.oid = i.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2`

// read reads it in the transaction that has the snapshot. A schema of that name that no
// agent made says nothing.
func (f *former) read(ctx context.Context, conn *pgx.Conn) error {
	have, ours, err := links.Ours(ctx, conn)
	if err != nil || !have || !ours {
		return err
	}
	var there []string
	if err := conn.QueryRow(ctx, formerTables).Scan(&there); err != nil {
		return pg.Classify(err, "look for what the link has changed")
	}
	if err := f.readTables(ctx, conn, there); err != nil {
		return pg.Classify(err, "read what the link has changed")
	}
	return nil
}

func (f *former) readTables(ctx context.Context, conn *pgx.Conn, there []string) error {
	if slices.Contains(there, "identity") {
		rows, err := conn.Query(ctx, formerIdentities)
		if err != nil {
			return err
		}
		if f.identities, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (i identity, err error) {
			return i, row.Scan(&i.table.Schema, &i.table.Name, &i.was, &i.index)
		}); err != nil {
			return err
		}
	}
	if slices.Contains(there, "trigger_mode") {
		rows, err := conn.Query(ctx, formerModes)
		if err != nil {
			return err
		}
		if f.modes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m mode, err error) {
			return m, row.Scan(&m.kind, &m.table.Schema, &m.table.Name, &m.name, &m.was)
		}); err != nil {
			return err
		}
	}
	if slices.Contains(there, "gate_limit") {
		return conn.QueryRow(ctx, `SELECT max(was) FROM ONLY twinspan.gate_limit`).Scan(&f.limit)
	}
	return nil
}

// into adds entries that bring it back, behind what they need: of identities the index, of
// modes what has one.
func (f *former) into(entries []Entry) []Entry {
	last := 0
	for _, e := range entries {
		last = max(last, e.ID)
	}
	add := func(kind string, table sqlname.Table, name, sql string, needs func(Entry) bool) {
		last++
		made := Entry{Section: PostData, ID: last, Kind: kind, Schema: table.Schema, Name: name, Table: table, SQL: Text(sql)}
		for _, e := range entries {
			if e.Section == PostData && needs(e) {
				made.Needs = append(made.Needs, e.ID)
			}
		}
		entries = append(entries, made)
	}
	for _, i := range f.identities {
		words := map[string]string{"d": "DEFAULT", "f": "FULL", "i": "USING INDEX " + sqlname.Quote(i.index)}[i.was]
		if words == "" || i.was == "i" && i.index == "" {
			words = "NOTHING"
		}
		add(kindIdentity, i.table, i.table.Name, "ALTER TABLE ONLY "+i.table.SQL()+" REPLICA IDENTITY "+words, func(e Entry) bool {
			return i.was == "i" && e.Schema == i.table.Schema && (e.Kind == kindIndex || e.Kind == kindConstraint) && e.Table == i.table
		})
	}
	for _, m := range f.modes {
		word := map[string]string{"A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}[m.was]
		if word == "" {
			continue
		}
		sql := fmt.Sprintf("ALTER TABLE ONLY %s %s %s %s", m.table.SQL(), word, m.kind, sqlname.Quote(m.name))
		kind := "TRIGGER"
		switch m.kind {
		case kindEvent:
			kind, sql = kindEvent, fmt.Sprintf("ALTER EVENT TRIGGER %s %s", sqlname.Quote(m.name), word)
		case "RULE":
			kind, sql = "RULE", fmt.Sprintf("ALTER TABLE %s %s RULE %s", m.table.SQL(), word, sqlname.Quote(m.name))
		}
		add(kind, m.table, m.name, sql, func(e Entry) bool { return e.Kind == m.kind })
	}
	return entries
}

const kindIdentity = "REPLICA IDENTITY"
