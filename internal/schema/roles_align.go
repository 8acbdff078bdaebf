package schema

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// AlignedRole is a role that AlignRoles has given something.
type AlignedRole struct {
	Name  string
	Given []string // in words
	Left  []string // what was not given, for the instance's owner to decide on
}

// AlignRoles gives roles that the instance has what they have more on the primary's, in
// one transaction: attributes, memberships and, where the roles come with verifiers,
// passwords. Nothing is taken from a role, and a superuser is left as it is. As with
// CreateRoles, what would give power over the instance is left out.
func AlignRoles(ctx context.Context, server *pg.DSN, name string, roles []pg.Role) ([]AlignedRole, error) {
	conn, err := server.Connect(ctx, pg.Session{Name: name + "/roles"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := beSilent(ctx, conn); err != nil {
		return nil, err
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.Name
		for _, m := range r.MemberOf {
			names = append(names, m.Role)
		}
	}
	var aligned []AlignedRole
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		here, err := pg.RolesNamed(ctx, tx, names)
		if err != nil {
			return err
		}
		if err := pg.ReadPasswords(ctx, tx, here, true); err != nil {
			return err
		}
		for _, want := range roles {
			have := pg.RoleIn(here, want.Name)
			if have == nil || have.Superuser {
				continue
			}
			a, statements := align(want, *have, here, tx.Conn().PgConn().ParameterStatus("server_version"))
			for _, sql := range statements {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return refusedRole(err, want.Name)
				}
			}
			if len(a.Given)+len(a.Left) > 0 {
				aligned = append(aligned, a)
			}
		}
		return nil
	})
	if err != nil {
		return nil, pg.Classify(err, "align roles")
	}
	return aligned, nil
}

// align says what a role is given and by which statements.
func align(want, have pg.Role, here []pg.Role, version string) (a AlignedRole, statements []string) {
	a.Name = want.Name
	quoted := sqlname.Quote(want.Name)
	if attributes := Lacking(want, have); len(attributes) > 0 {
		a.Given = append(a.Given, attributes...)
		statements = append(statements, "ALTER ROLE "+quoted+" "+strings.Join(attributes, " "))
	}
	for _, left := range []struct {
		is   bool
		word string
	}{{want.Superuser, "SUPERUSER"}, {want.Replication && !have.Replication, "REPLICATION"}} {
		if left.is {
			a.Left = append(a.Left, left.word)
		}
	}
	for _, m := range want.MemberOf {
		if have.In(m.Role) {
			continue
		}
		group := pg.RoleIn(here, m.Role)
		if group == nil || group.Superuser || slices.Contains(serverRoles, m.Role) {
			a.Left = append(a.Left, "membership in "+m.Role)
			continue
		}
		a.Given = append(a.Given, "membership in "+m.Role)
		statements = append(statements, grantSQL(want.Name, m, version))
	}
	if want.Verifier != "" && want.Verifier != have.Verifier {
		a.Given = append(a.Given, "its password")
		statements = append(statements, "ALTER ROLE "+quoted+" PASSWORD "+sqlname.Literal(string(want.Verifier)))
	}
	return a, statements
}

// Lacking lists the attributes that a role is to have and has not, but for those that
// give power over the instance.
func Lacking(want, have pg.Role) []string {
	var list []string
	for _, a := range []struct {
		want, have bool
		word       string
	}{{want.Login, have.Login, "LOGIN"}, {want.Inherit, have.Inherit, "INHERIT"}, {want.BypassRLS, have.BypassRLS, "BYPASSRLS"},
		{want.CreateDB, have.CreateDB, "CREATEDB"}, {want.CreateRole, have.CreateRole, "CREATEROLE"}} {
		if a.want && !a.have && !have.Superuser {
			list = append(list, a.word)
		}
	}
	return list
}
