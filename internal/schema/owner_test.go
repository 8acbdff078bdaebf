package schema

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestOwnersWhoAreNoSuperusers(t *testing.T) {
	refused := &pgconn.PgError{Code: "42501"}
	for _, c := range []struct {
		kind, sql, want string
		left            bool
	}{
		{kindWrapper, "CREATE FOREIGN DATA WRAPPER \"f;\n w\";\n\n\nALTER FOREIGN DATA WRAPPER \"fw\" OWNER TO \"a OWNER TO b\";\n", "CREATE FOREIGN DATA WRAPPER \"f;\n w\";\n\n\n", true},
		{kindEvent, "CREATE EVENT TRIGGER e ON sql_drop\n   EXECUTE FUNCTION s.f();\n\nALTER EVENT TRIGGER e OWNER TO adm;", "CREATE EVENT TRIGGER e ON sql_drop\n   EXECUTE FUNCTION s.f();\n\n", true},
		{kindEvent, "CREATE EVENT TRIGGER e ON sql_drop\n   EXECUTE FUNCTION s.f();\n\nALTER EVENT TRIGGER e DISABLE;\n\n\nALTER EVENT TRIGGER e OWNER TO adm;\n",
			"CREATE EVENT TRIGGER e ON sql_drop\n   EXECUTE FUNCTION s.f();\n\nALTER EVENT TRIGGER e DISABLE;\n\n\n", true},
		{kindEvent, "CREATE EVENT TRIGGER e ON sql_drop\n   EXECUTE FUNCTION s.f();\n\nALTER EVENT TRIGGER e DISABLE;\n", "", false},
		{"TABLE", "CREATE TABLE t ();\n\nALTER TABLE t OWNER TO adm;\n", "", false},
	} {
		got, left := withoutOwner(Entry{Kind: c.kind, SQL: Text(c.sql)}, refused)
		if left != c.left || left && string(got.SQL) != c.want {
			t.Errorf("%s: %q %v", c.sql, got.SQL, left)
		}
	}
	if _, left := withoutOwner(Entry{Kind: kindEvent, SQL: "x\nALTER EVENT TRIGGER e OWNER TO a;\n"}, &pgconn.PgError{Code: "42704"}); left {
		t.Error("another error")
	}
}
