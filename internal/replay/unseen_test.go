package replay

import "testing"

func TestMessagesNameRelations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		message, name string
		want          bool
	}{
		{`relation "w" does not exist`, "w", true},
		{`relation "w" does not exist`, "l", false},
		{`relation "w" does not exist`, "relation", false},
		{`relation "app.base" does not exist`, "base", true},
		{`relation "app.base" does not exist`, "app", false},
		{`relation "app.database.x" does not exist`, "base", false},
		{`Relation »große Tabelle« existiert nicht`, "große Tabelle", true},
		{`отношение "a b" не существует`, "a b", true},
		{`type "base" does not exist`, "", false},
	} {
		if got := names(c.message, c.name); got != c.want {
			t.Errorf("whether %q names %q: %v", c.message, c.name, got)
		}
	}
}
