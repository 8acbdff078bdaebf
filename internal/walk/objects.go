package walk

import (
	"fmt"
	"slices"
)

func index(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	n := w.name("x")
	on := "(id)"
	switch w.rng.IntN(6) {
	case 0:
		on = "(walk.shout(id::text))"
	case 1:
		on = "(id DESC NULLS LAST) WHERE id % 2 = 0"
	case 2:
		on = "USING hash (id)"
	case 3:
		for _, c := range t.columns {
			if c.kind.key {
				on = fmt.Sprintf("(md5(format('%%s', id)), %s)", q(c.name))
			}
		}
	case 4:
		on = "USING brin (id)"
	case 5:
		on = "(id) INCLUDE (id)"
	}
	t.indexes = append(t.indexes, t.beside(n))
	return []string{fmt.Sprintf("CREATE INDEX %s ON %s %s", q(n), t.sql(), on)}
}

func concurrently(w *Walk) []string {
	t := w.table(func(t *table) bool { return t.by == "" })
	if t == nil {
		return nil
	}
	n := w.name("x")
	t.indexes = append(t.indexes, t.beside(n))
	return []string{fmt.Sprintf("CREATE %sINDEX CONCURRENTLY %s ON %s (id)", one(w, []string{"", "UNIQUE "}), q(n), t.sql())}
}

func dropIndex(w *Walk) []string {
	t := w.table(func(t *table) bool { return len(t.indexes) > 0 })
	if t == nil {
		return nil
	}
	i := t.indexes[0]
	t.indexes = t.indexes[1:]
	return []string{"DROP INDEX " + i}
}

func view(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	n := w.name("v")
	t.views = append(t.views, "VIEW "+t.beside(n))
	return []string{fmt.Sprintf("CREATE VIEW %s AS SELECT * FROM %s", t.beside(n), t.sql())}
}

func materialized(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	n := w.name("m")
	t.views = append(t.views, "MATERIALIZED VIEW "+t.beside(n))
	return []string{fmt.Sprintf("CREATE MATERIALIZED VIEW %s AS SELECT id, %s AS shown FROM %s%s", t.beside(n),
		one(w, []string{"id::text", "walk.shout(id::text)", "(id * interval '1 hour')::text", "to_timestamp(id::float8)::text", "id::float8 / 3 || ''", "current_setting('DateStyle')"}), t.sql(), one(w, []string{"", "", " WITH NO DATA"}))}
}

func refresh(w *Walk) []string {
	t := w.table(func(t *table) bool {
		return slices.ContainsFunc(t.views, func(v string) bool { return v[0] == 'M' })
	})
	if t == nil {
		return nil
	}
	for _, v := range t.views {
		if v[0] == 'M' {
			return []string{"REFRESH " + v}
		}
	}
	return nil
}

func dropView(w *Walk) []string {
	t := w.table(func(t *table) bool { return len(t.views) > 0 })
	if t == nil {
		return nil
	}
	v := t.views[0]
	t.views = t.views[1:]
	return []string{"DROP " + v + " CASCADE"}
}

func trigger(w *Walk) []string {
	t := w.table(func(t *table) bool { return !t.part })
	if t == nil {
		return nil
	}
	n := q(w.name("trg"))
	t.triggers = append(t.triggers, n)
	return []string{fmt.Sprintf("CREATE TRIGGER %s %s", n, fmt.Sprintf(one(w, []string{
		"AFTER INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION walk.note()",
		"BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION walk.stamp()",
		"AFTER DELETE ON %s FOR EACH ROW WHEN (OLD.id > 0) EXECUTE FUNCTION walk.note()",
	}), t.sql()))}
}

func triggerMode(w *Walk) []string {
	t := w.table(func(t *table) bool { return len(t.triggers) > 0 })
	if t == nil {
		return nil
	}
	if w.chance(4) {
		n := t.triggers[0]
		t.triggers = t.triggers[1:]
		return []string{fmt.Sprintf("DROP TRIGGER %s ON %s", n, t.sql())}
	}
	return []string{fmt.Sprintf("ALTER TABLE %s %s TRIGGER %s", t.sql(), one(w, []string{"ENABLE", "DISABLE", "ENABLE REPLICA", "ENABLE ALWAYS"}), one(w, append([]string{"USER"}, t.triggers...)))}
}

func policy(w *Walk) []string {
	t := w.table(func(t *table) bool { return !t.part })
	if t == nil {
		return nil
	}
	if len(t.policies) == 0 {
		n := q(w.name("pol"))
		t.policies = append(t.policies, n)
		return []string{fmt.Sprintf("CREATE POLICY %s ON %s %s USING (id %% 5 <> 1)", n, t.sql(), one(w, []string{"", "FOR SELECT TO clerk", "AS RESTRICTIVE"}))}
	}
	return []string{fmt.Sprintf("ALTER TABLE %s %s ROW LEVEL SECURITY", t.sql(), one(w, []string{"ENABLE", "DISABLE", "FORCE", "NO FORCE"}))}
}

func enumValue(w *Walk) []string {
	if w.role != Roles[0] {
		return nil
	}
	label := w.name("mood ")
	if len(label) > 60 {
		return nil
	}
	w.enums = append(w.enums, label)
	return []string{fmt.Sprintf("ALTER TYPE walk.mood ADD VALUE '%s'%s", escape(label), one(w, []string{"", " BEFORE 'sad'", " AFTER 'sad'"}))}
}

func escape(s string) string {
	var out []rune
	for _, r := range s {
		if r == '\'' || r == '\\' {
			return "plain"
		}
		out = append(out, r)
	}
	return string(out)
}

func userType(w *Walk) []string {
	n := q(w.name("Type"))
	switch w.rng.IntN(4) {
	case 0:
		return []string{fmt.Sprintf("CREATE TYPE walk.%s AS ENUM ('a', 'it''s')", n), fmt.Sprintf("ALTER TYPE walk.%s RENAME VALUE 'a' TO 'b'", n)}
	case 1:
		return []string{fmt.Sprintf("CREATE DOMAIN walk.%s AS walk.positive DEFAULT 5 CHECK (VALUE < 1000)", n), fmt.Sprintf("ALTER DOMAIN walk.%s SET DEFAULT 6", n)}
	case 2:
		return []string{fmt.Sprintf("CREATE TYPE walk.%s AS (a int, b walk.pair)", n), fmt.Sprintf("ALTER TYPE walk.%s ADD ATTRIBUTE c text", n), fmt.Sprintf("COMMENT ON TYPE walk.%s IS 'pair of pairs'", n)}
	}
	return []string{fmt.Sprintf("CREATE TYPE walk.%s AS RANGE (subtype = timestamptz)", n), fmt.Sprintf("ALTER TYPE walk.%s SET SCHEMA public", n)}
}

func alterComposite(w *Walk) []string {
	if w.role != Roles[0] {
		return nil
	}
	return []string{fmt.Sprintf("ALTER TYPE walk.nest ADD ATTRIBUTE %s text", q(w.name("attr")))}
}

func function(w *Walk) []string {
	n := "walk." + q(w.name("fn"))
	return []string{fmt.Sprintf("CREATE OR REPLACE FUNCTION %s(n int DEFAULT 1) RETURNS text LANGUAGE sql STABLE %s AS 'SELECT shout(n::text)'", n, one(w, []string{"", "SET DateStyle FROM CURRENT", "SET search_path = walk", "SECURITY DEFINER"})),
		fmt.Sprintf("ALTER FUNCTION %s(int) %s", n, one(w, []string{"COST 7", "STRICT", "OWNER TO CURRENT_USER", "SET TimeZone FROM CURRENT", "RESET ALL"}))}
}

func sequence(w *Walk) []string {
	n := "walk." + q(w.name("seq"))
	return []string{fmt.Sprintf("CREATE SEQUENCE %s START %d%s", n, 1+w.rng.IntN(9), one(w, []string{"", " CYCLE MAXVALUE 100", " INCREMENT -3 MINVALUE -100 MAXVALUE 10", " AS smallint CACHE 5"})), fmt.Sprintf("SELECT nextval('%s')", quoted(n)),
		fmt.Sprintf("ALTER SEQUENCE %s %s", n, one(w, []string{"RESTART WITH 3", "CACHE 2", "INCREMENT 2", "OWNED BY NONE"}))}
}

func quoted(s string) string {
	out := ""
	for _, r := range s {
		if r == '\'' {
			out += "'"
		}
		out += string(r)
	}
	return out
}

func statistics(w *Walk) []string {
	t, c := w.column(func(t *table) bool { return t.by == "" })
	if t == nil {
		return nil
	}
	return []string{fmt.Sprintf("CREATE STATISTICS %s ON id, %s FROM %s", t.beside(w.name("st")), q(c.name), t.sql())}
}

func rule(w *Walk) []string {
	v := w.table(func(t *table) bool { return len(t.views) > 0 && t.views[0][0] == 'V' })
	if v == nil {
		return nil
	}
	return []string{fmt.Sprintf("CREATE OR REPLACE RULE noted AS ON DELETE TO %s DO INSTEAD NOTHING", v.views[0][len("VIEW "):])}
}

// form is a way in which a database is changed.
type form struct {
	name   string
	weight int
	make   func(*Walk) []string // the commands; none when nothing is fit
	plain  bool                 // never inside of a function
}

var forms = []form{
	{"create table", 5, create, false},
	{"partitioned table", 2, partitioned, false},
	{"inherited table", 1, child, false},
	{"table of rows", 2, as, true},
	{"table that no event trigger sees", 1, unseen, true},
	{"temporary table", 1, temporary, true},
	{"rights on temporary table", 1, temporaryRights, true},
	{"unlogged to logged", 1, persistence, false},
	{"add column", 5, addColumn, false},
	{"default 'now'", 1, addMoment, false},
	{"drop column", 1, dropColumn, false},
	{"type using", 3, changeType, false},
	{"type", 2, changeTypePlain, false},
	{"type using stable", 2, changeTypeStable, false},
	{"type of id", 1, changeID, false},
	{"rename table", 1, renameTable, false},
	{"rename column", 1, renameColumn, false},
	{"set schema", 1, setSchema, false},
	{"swap names", 1, swap, false},
	{"made again", 1, again, false},
	{"drop table", 3, dropTable, false},
	{"owner", 1, owner, false},
	{"rights", 3, grant, false},
	{"alter column", 2, alterColumn, false},
	{"constraint", 2, constraint, false},
	{"key", 3, changeKey, false},
	{"replica identity", 1, identity, false},
	{"detach", 1, detach, false},
	{"attach", 1, attach, false},
	{"inherit", 1, inherit, false},
	{"cluster", 1, cluster, false},
	{"several", 1, several, true},
	{"comment", 1, comment, false},
	{"index", 2, index, false},
	{"index concurrently", 1, concurrently, true},
	{"drop index", 1, dropIndex, false},
	{"view", 1, view, false},
	{"materialized view", 1, materialized, false},
	{"refresh", 1, refresh, false},
	{"drop view", 1, dropView, false},
	{"trigger", 2, trigger, false},
	{"trigger mode", 2, triggerMode, false},
	{"policy", 2, policy, false},
	{"enum value", 1, enumValue, true},
	{"user type", 1, userType, false},
	{"attribute", 1, alterComposite, false},
	{"function", 1, function, true},
	{"sequence", 1, sequence, true},
	{"statistics", 1, statistics, false},
	{"rule", 1, rule, false},
	{"insert", 22, insert, true},
	{"update", 10, update, true},
	{"move keys", 3, moveKeys, true},
	{"delete", 4, remove, true},
	{"nextval", 2, draw, true},
	{"setval", 1, setSequence, true},
	{"truncate", 2, truncate, false},
	{"truncate several", 1, truncateTwo, false},
}

var weights = func() []int {
	var list []int
	for _, f := range forms {
		list = append(list, f.weight)
	}
	return list
}()
