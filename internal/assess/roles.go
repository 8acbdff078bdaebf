package assess

import (
	"context"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// judgeRoles compares the roles that the primary database needs with those that
// are here.
func (l *secondaryLook) judgeRoles(ctx context.Context) error {
	names := make([]string, len(l.Needs.Roles))
	for i, r := range l.Needs.Roles {
		names[i] = r.Name
	}
	list, err := pg.RolesNamed(ctx, l.conn, names)
	if err != nil {
		return err
	}
	if !l.plain {
		if err := pg.ReadPasswords(ctx, l.conn, list, false); err != nil {
			return err
		}
	}
	for _, r := range l.Needs.Roles {
		have := pg.RoleIn(list, r.Name)
		if have == nil {
			l.found.informsIf(true, "role_missing", r.Name, missingRole(r), "on the secondary: CREATE ROLE "+sqlname.Quote(r.Name)+loginWord(r)+"; or link create with --create-roles")
			continue
		}
		l.compareRole(r, *have)
	}
	return nil
}

func loginWord(r pg.Role) string {
	if r.Login {
		return " LOGIN"
	}
	return ""
}

func missingRole(r pg.Role) string {
	switch {
	case !r.Direct:
		return "the role uses the database as a member of another, and is not on the secondary"
	case r.Login:
		return "the role owns or is granted something in the database and is not on the secondary: it is created NOLOGIN there, so nobody can log in as it"
	}
	return "the role owns or is granted something in the database and is not on the secondary: it is created NOLOGIN there"
}

func (l *secondaryLook) compareRole(want, have pg.Role) {
	var lacks []string
	for _, a := range []struct {
		want, have bool
		word       string
	}{
		{want.Login, have.Login, "LOGIN"}, {want.BypassRLS, have.BypassRLS || have.Superuser, "BYPASSRLS"}, {want.Superuser, have.Superuser, "SUPERUSER"},
		{want.Inherit, have.Inherit, "INHERIT"}, {want.CreateDB, have.CreateDB || have.Superuser, "CREATEDB"}, {want.CreateRole, have.CreateRole || have.Superuser, "CREATEROLE"},
	} {
		if a.want && !a.have {
			lacks = append(lacks, a.word)
		}
	}
	quoted := sqlname.Quote(want.Name)
	var remedy []string
	if len(lacks) > 0 {
		remedy = append(remedy, "ALTER ROLE "+quoted+" "+strings.Join(lacks, " "))
	}
	for _, m := range want.MemberOf {
		if !have.Superuser && !have.In(m.Role) {
			lacks = append(lacks, "membership in "+m.Role)
			remedy = append(remedy, "GRANT "+sqlname.Quote(m.Role)+" TO "+quoted)
		}
	}
	if len(lacks) > 0 {
		l.found.informsIf(true, "role_differs", want.Name, fmt.Sprintf("the role is on the secondary, but without %s, which it has on the primary", strings.Join(lacks, ", ")),
			"on the secondary: "+strings.Join(remedy, "; "))
	}
	l.found.informsIf(!l.plain && want.Login && want.Password && have.Login && !have.Password, "role_without_password", want.Name,
		"the role has a password on the primary and none on the secondary", "on the secondary: \\password "+quoted)
}
