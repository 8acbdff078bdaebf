package walk

import (
	"fmt"
	"strings"
)

func (t *table) written() []column {
	var list []column
	for _, c := range t.columns {
		if !c.generated {
			list = append(list, c)
		}
	}
	return list
}

// values are expressions for some of the columns of a table.
func (w *Walk) values(t *table) (names, values []string) {
	for _, c := range t.written() {
		if c.kind.literal == nil || w.chance(4) {
			continue
		}
		value := c.kind.literal(w)
		if w.chance(8) {
			value = "NULL"
		}
		names, values = append(names, q(c.name)), append(values, value)
	}
	return names, values
}

func insert(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	names, values := w.values(t)
	conflict := ""
	if w.chance(6) {
		conflict = " ON CONFLICT DO NOTHING"
	}
	w.made++
	return []string{fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generate_series(1, %d) i%s", t.sql(), strings.Join(append([]string{"id"}, names...), ", "),
		strings.Join(append([]string{fmt.Sprintf("%d + i", w.made*100-5000)}, values...), ", "), 1+w.rng.IntN(30), conflict)}
}

func update(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	names, values := w.values(t)
	var list []string
	for i, n := range names {
		list = append(list, n+" = "+values[i])
	}
	if len(list) == 0 {
		list = []string{"id = id"}
	}
	return []string{fmt.Sprintf("UPDATE %s SET %s WHERE id %% %d = %d", t.sql(), strings.Join(list, ", "), 2+w.rng.IntN(5), w.rng.IntN(2))}
}

func moveKeys(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	w.made++
	return []string{fmt.Sprintf("UPDATE %s SET id = id + %d WHERE id %% 4 = 1", t.sql(), 10000+w.made*100)}
}

func remove(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	return []string{fmt.Sprintf("DELETE FROM %s WHERE id %% 7 = %d", t.sql(), w.rng.IntN(7))}
}

func draw(w *Walk) []string {
	return []string{"INSERT INTO walk.seen SELECT nextval('walk.numbers'), 2 FROM generate_series(1, 3)"}
}

func setSequence(w *Walk) []string {
	return []string{fmt.Sprintf("SELECT setval('walk.numbers', %d)", 1000*(w.made+1))}
}

func truncate(w *Walk) []string {
	t := w.table(nil)
	if t == nil {
		return nil
	}
	return []string{"TRUNCATE " + t.sql() + one(w, []string{"", " CASCADE", " RESTART IDENTITY", " RESTART IDENTITY CASCADE"})}
}

func truncateTwo(w *Walk) []string {
	t, other := w.table(nil), w.table(nil)
	if t == nil || t == other {
		return nil
	}
	return []string{fmt.Sprintf("TRUNCATE ONLY %s, %s CASCADE", t.sql(), other.sql())}
}
