package schema

import (
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
)

func TestAlign(t *testing.T) {
	here := []pg.Role{{Name: "staff"}, {Name: "root", Superuser: true}, {Name: `Odd "x"`, Inherit: true, CreateDB: true}}
	want := pg.Role{Name: `Odd "x"`, Login: true, Inherit: true, BypassRLS: true, Superuser: true, Replication: true, Verifier: "SCRAM-SHA-256$new",
		MemberOf: []pg.Membership{{Role: "staff", Admin: true}, {Role: "root"}, {Role: "pg_execute_server_program"}, {Role: "elsewhere"}}}
	a, statements := align(want, here[2], here, "15.18")
	if !slices.Equal(statements, []string{`ALTER ROLE "Odd ""x""" LOGIN BYPASSRLS`, `GRANT "staff" TO "Odd ""x""" WITH ADMIN OPTION`, `ALTER ROLE "Odd ""x""" PASSWORD 'SCRAM-SHA-256$new'`}) {
		t.Errorf("%q", statements)
	}
	if !slices.Equal(a.Given, []string{"LOGIN", "BYPASSRLS", "membership in staff", "its password"}) ||
		!slices.Equal(a.Left, []string{"SUPERUSER", "REPLICATION", "membership in root", "membership in pg_execute_server_program", "membership in elsewhere"}) {
		t.Errorf("%+v", a)
	}
	// Nothing is taken away, and who has it all is left alone.
	have := pg.Role{Name: "x", Login: true, CreateRole: true, Verifier: "v", MemberOf: []pg.Membership{{Role: "staff"}}}
	if a, statements := align(pg.Role{Name: "x", Verifier: "v", MemberOf: have.MemberOf}, have, here, "15.18"); len(statements)+len(a.Given)+len(a.Left) != 0 {
		t.Errorf("%+v: %q", a, statements)
	}
	if list := Lacking(pg.Role{Login: true, CreateDB: true}, pg.Role{Superuser: true}); len(list) != 0 {
		t.Errorf("a superuser lacks %q", list)
	}
}
