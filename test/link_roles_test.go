package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A role that uses the primary and could not log in on the twin is a problem of the link;
// link roles names what roles lack there, brings it from either side, and the problem is
// over. Passwords cross only at the primary's word, and roles that did not come with the
// link are not changed for the primary.
func TestRolesAreBrought(t *testing.T) {
	t.Parallel()
	p := bankPair(t, linktest.Options{})
	ctx := t.Context()
	a, b := p.A.Server.DSN("bank"), p.B.Server.DSN("bank")
	// One is on both sides, and has less on the twin's.
	pgtest.Exec(t, p.B.Server.DSN("postgres"), `CREATE ROLE both_sides NOLOGIN`)
	pgtest.Exec(t, a, `CREATE ROLE staff; CREATE ROLE app LOGIN PASSWORD 'app secret' IN ROLE staff; CREATE ROLE both_sides LOGIN BYPASSRLS PASSWORD 'both';
		GRANT SELECT ON account TO app, both_sides`)
	app := pgtest.Conn(t, p.A.Server.DSNOf("app", "app secret", "bank"))
	if _, err := app.Exec(ctx, `SELECT count(*) FROM account`); err != nil {
		t.Fatal(err)
	}
	find := func(l api.LinkRoles, name string) api.LinkRole {
		if i := slices.IndexFunc(l.Roles, func(r api.LinkRole) bool { return r.Name == name }); i >= 0 {
			return l.Roles[i]
		}
		return api.LinkRole{}
	}
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(ctx, "bank")
			if q := problemOf(l.Problems, "role_cannot_log_in"); err != nil || q.Subject != "app" || q.Severity != api.Warns || !strings.Contains(q.Hint, "link roles bank") {
				return fmt.Errorf("side %s: %+v, %v", side.Name, l.Problems, err)
			}
			roles, err := side.Client.LinkRoles(ctx, "bank")
			if r := find(roles, "app"); err != nil || roles.Agent != "b" || r.UsedAt == nil || r.Refused == "" || r.State == api.RoleSame {
				return fmt.Errorf("side %s: %+v, %v", side.Name, roles, err)
			}
			if r := find(roles, "both_sides"); r.State != api.RoleDiffers || !slices.Equal(r.Lacks, []string{"LOGIN", "BYPASSRLS"}) || r.Password != api.PasswordMissing || r.UsedAt != nil {
				return fmt.Errorf("side %s: %+v", side.Name, r)
			}
			return nil
		})
	}

	// At the primary it takes what the secondary's operator grants.
	if _, err := p.B.Client.RevokePeer(ctx, "a", api.Grant{Database: "*", Direction: "to-here", Operations: []string{"roles"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.A.Client.BringRoles(ctx, "bank", api.BringRoles{WithPasswords: true}); code(err) != "peer_not_granted" {
		t.Errorf("without a grant: %v", err)
	}
	if _, err := p.B.Client.BringRoles(ctx, "bank", api.BringRoles{WithPasswords: true}); code(err) != "passwords_there" {
		t.Errorf("passwords for the secondary: %v", err)
	}
	if _, err := p.B.Client.GrantPeer(ctx, "a", api.Grant{Database: "bank", Direction: "to-here", Operations: []string{"roles"}}); err != nil {
		t.Fatal(err)
	}
	roles, err := p.A.Client.BringRoles(ctx, "bank", api.BringRoles{WithPasswords: true})
	if err != nil || !slices.ContainsFunc(roles.Done, func(d api.RoleDone) bool {
		return d.Name == "both_sides" && strings.Contains(d.Text, "is left as it is")
	}) {
		t.Fatalf("%+v, %v", roles, err)
	}
	if r := find(roles, "app"); r.State != api.RoleSame || r.Password != api.PasswordSame || r.Refused != "" {
		t.Errorf("%+v", r)
	}
	want := pgtest.Query(t, a, `SELECT rolpassword FROM pg_authid WHERE rolname = 'app'`)[0][0]
	if got := pgtest.Query(t, b, `SELECT rolpassword, pg_has_role('app', 'staff', 'MEMBER')::text FROM pg_authid WHERE rolname = 'app'`)[0]; got[0] != want || got[1] != "true" {
		t.Errorf("the role came as %v", got)
	}
	if got := pgtest.Query(t, b, `SELECT rolcanlogin::text, rolbypassrls::text, (rolpassword IS NULL)::text FROM pg_authid WHERE rolname = 'both_sides'`)[0]; !slices.Equal(got, []string{"false", "false", "true"}) {
		t.Errorf("a role that did not come with the link was changed for the primary: %v", got)
	}
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			if l, err := side.Client.Link(ctx, "bank"); err != nil || problemOf(l.Problems, "role_cannot_log_in").Code != "" {
				return fmt.Errorf("side %s: %+v, %v", side.Name, l.Problems, err)
			}
			return nil
		})
		if strings.Contains(side.Log(), "SCRAM-SHA-256$") {
			t.Errorf("the log of agent %s has a verifier", side.Name)
		}
	}

	// The secondary's own operator decides on every role of its instance.
	roles, err = p.B.Client.BringRoles(ctx, "bank", api.BringRoles{})
	if r := find(roles, "both_sides"); err != nil || r.State != api.RoleSame || r.Password != api.PasswordMissing {
		t.Errorf("%+v, %v", r, err)
	}
	if got := pgtest.Query(t, b, `SELECT rolcanlogin::text, rolbypassrls::text, (rolpassword IS NULL)::text FROM pg_authid WHERE rolname = 'both_sides'`)[0]; !slices.Equal(got, []string{"true", "true", "true"}) {
		t.Errorf("%v", got)
	}
}
