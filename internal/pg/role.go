package pg

import (
	"context"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Verifier is what a server keeps of a role's password (pg_authid.rolpassword).
// Who has it can, with the method md5, log in; so it is never printed or logged.
type Verifier string

// hidden is what is seen of a verifier.
const hidden = "[hidden]"

// String implements fmt.Stringer.
func (v Verifier) String() string {
	if v == "" {
		return ""
	}
	return hidden
}

// GoString implements fmt.GoStringer.
func (v Verifier) GoString() string { return v.String() }

// LogValue implements slog.LogValuer.
func (v Verifier) LogValue() slog.Value { return slog.StringValue(v.String()) }

// Role is a role of an instance as far as one of its databases needs it.
type Role struct {
	Name        string       `json:"name"`
	Direct      bool         `json:"direct"` // owns something, is granted something or has settings in the database
	Login       bool         `json:"login"`
	Inherit     bool         `json:"inherit"`
	BypassRLS   bool         `json:"bypassRls"`
	CreateDB    bool         `json:"createDb"`
	CreateRole  bool         `json:"createRole"`
	Superuser   bool         `json:"superuser"`
	Replication bool         `json:"replication"`
	Limit       int          `json:"limit"`                // of connections; -1 for none
	ValidUntil  string       `json:"validUntil,omitempty"` // of the password; "" for ever
	Password    bool         `json:"password"`             // it has one
	Comment     string       `json:"comment,omitempty"`
	Settings    []string     `json:"settings,omitempty"` // name=value, of all databases
	MemberOf    []Membership `json:"memberOf,omitempty"`
	Verifier    Verifier     `json:"verifier,omitempty"` // only where it was asked for
}

// In says whether the role is a direct member of another.
func (r *Role) In(group string) bool {
	return slices.ContainsFunc(r.MemberOf, func(m Membership) bool { return m.Role == group })
}

// RoleIn finds a role in a list by its name, nil when it is not there.
func RoleIn(list []Role, name string) *Role {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// Membership is a role's membership in another one.
type Membership struct {
	Role  string `json:"role"`
	Admin bool   `json:"admin,omitempty"`
	// Inherit and Set are the options of version 16 and later, nil before.
	Inherit *bool `json:"inherit,omitempty"`
	Set     *bool `json:"set,omitempty"`
}

// Usable says whether the member can do anything by it but to let others in. From version 16 on, who made a role is
// a member of it that can not.
func (m Membership) Usable() bool { return m.Inherit == nil || *m.Inherit || m.Set == nil || *m.Set }

// rolesSQL finds the roles that the database depends on (pg_shdepend: those that own
// something in it or are named in a grant or a policy; its owner; those granted
// something on the database itself; those with settings in it), the roles that these
// are members of, and the roles that are members of them: those who use the database.
// The role that initdb made is in no dependency (pg_shdepend records no pinned objects).
// A superuser uses all databases; it is left out where it is not needed directly.
const rolesSQL = `
WITH RECURSIVE here AS (
    SELECT oid, datdba FROM pg_catalog.pg_database WHERE datname = current_database()
), direct AS (
    SELECT d.refobjid AS oid FROM pg_catalog.pg_shdepend d, here
     WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
       AND (d.dbid = here.oid OR d.dbid = 0 AND d.classid = 'pg_catalog.pg_database'::regclass AND d.objid = here.oid)
    UNION SELECT datdba FROM here
    UNION SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.relowner = 10 AND c.oid >= 16384
    UNION SELECT p.proowner FROM pg_catalog.pg_proc p WHERE p.proowner = 10 AND p.oid >= 16384
    UNION SELECT s.setrole FROM pg_catalog.pg_db_role_setting s, here WHERE s.setdatabase = here.oid AND s.setrole <> 0
), up AS (
    SELECT oid FROM direct
    UNION SELECT m.roleid FROM up JOIN pg_catalog.pg_auth_members m ON m.member = up.oid
), users AS (
    SELECT oid FROM direct
    UNION SELECT m.member FROM users JOIN pg_catalog.pg_auth_members m ON m.roleid = users.oid
), needed AS (SELECT oid FROM up UNION SELECT oid FROM users)
SELECT r.rolname::text, r.oid IN (SELECT oid FROM direct), r.rolcanlogin, r.rolinherit, r.rolbypassrls, r.rolcreatedb, r.rolcreaterole, r.rolsuper, r.rolreplication,
       r.rolconnlimit, CASE WHEN r.rolvaliduntil IS NULL OR r.rolvaliduntil = 'infinity' THEN '' ELSE r.rolvaliduntil::text END,
       coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), ''),
       array(SELECT c.line FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY AS c (line, n) WHERE s.setrole = r.oid AND s.setdatabase = 0 AND pg_catalog.octet_length(c.line) <= 65536 ORDER BY c.n)
  FROM pg_catalog.pg_roles r
 WHERE r.oid IN (SELECT oid FROM needed) AND r.rolname NOT LIKE 'pg\_%'
   AND (NOT r.rolsuper OR r.oid IN (SELECT oid FROM direct))
 ORDER BY 1`

// membersSQL lists memberships; since version 16 there can be several between the
// same two, by different grantors, of which the widest counts.
const membersSQL = `
SELECT u.rolname::text, g.rolname::text, bool_or(m.admin_option),
       bool_or((to_jsonb(m)->>'inherit_option')::boolean), bool_or((to_jsonb(m)->>'set_option')::boolean)
  FROM pg_catalog.pg_auth_members m
  JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
 WHERE u.rolname = ANY ($1)
 GROUP BY 1, 2 ORDER BY 1, 2`

// NeededRoles lists the roles that the database needs, by name, without their
// verifiers. Roles that every server has (pg_...) are not listed, memberships in
// them are.
func NeededRoles(ctx context.Context, q Rows) ([]Role, error) {
	rows, err := q.Query(ctx, rolesSQL)
	if err != nil {
		return nil, Classify(err, "list the roles that the database needs")
	}
	roles, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Role, err error) {
		return r, row.Scan(&r.Name, &r.Direct, &r.Login, &r.Inherit, &r.BypassRLS, &r.CreateDB, &r.CreateRole, &r.Superuser, &r.Replication,
			&r.Limit, &r.ValidUntil, &r.Comment, &r.Settings)
	})
	if err != nil {
		return nil, Classify(err, "list the roles that the database needs")
	}
	return roles, addMemberships(ctx, q, roles)
}

// RolesNamed lists those of the roles that the instance has.
func RolesNamed(ctx context.Context, q Rows, names []string) ([]Role, error) {
	rows, err := q.Query(ctx, `SELECT rolname::text, rolcanlogin, rolinherit, rolbypassrls, rolcreatedb, rolcreaterole, rolsuper, rolreplication, rolconnlimit
		FROM pg_catalog.pg_roles WHERE rolname = ANY ($1) ORDER BY 1`, names)
	if err != nil {
		return nil, Classify(err, "look for roles")
	}
	roles, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Role, err error) {
		return r, row.Scan(&r.Name, &r.Login, &r.Inherit, &r.BypassRLS, &r.CreateDB, &r.CreateRole, &r.Superuser, &r.Replication, &r.Limit)
	})
	if err != nil {
		return nil, Classify(err, "look for roles")
	}
	return roles, addMemberships(ctx, q, roles)
}

func addMemberships(ctx context.Context, q Rows, roles []Role) error {
	at := map[string]int{}
	names := make([]string, len(roles))
	for i, r := range roles {
		at[r.Name], names[i] = i, r.Name
	}
	rows, err := q.Query(ctx, membersSQL, names)
	if err != nil {
		return Classify(err, "list memberships of roles")
	}
	var member string
	var m Membership
	_, err = pgx.ForEachRow(rows, []any{&member, &m.Role, &m.Admin, &m.Inherit, &m.Set}, func() error {
		r := &roles[at[member]]
		r.MemberOf = append(r.MemberOf, m)
		m = Membership{}
		return nil
	})
	return Classify(err, "list memberships of roles")
}

// ReadPasswords notes which of the roles have a password and, with verifiers, what
// the server keeps of it. It needs a superuser.
func ReadPasswords(ctx context.Context, q Rows, roles []Role, verifiers bool) error {
	at := map[string]int{}
	names := make([]string, len(roles))
	for i, r := range roles {
		at[r.Name], names[i] = i, r.Name
	}
	rows, err := q.Query(ctx, `SELECT rolname::text, CASE WHEN $2 THEN rolpassword ELSE '' END
		FROM pg_catalog.pg_authid WHERE rolname = ANY ($1) AND rolpassword IS NOT NULL`, names, verifiers)
	if err != nil {
		return Classify(err, "read the passwords of roles")
	}
	var name, verifier string
	_, err = pgx.ForEachRow(rows, []any{&name, &verifier}, func() error {
		r := &roles[at[name]]
		r.Password, r.Verifier = true, Verifier(verifier)
		return nil
	})
	return Classify(err, "read the passwords of roles")
}
