package dbroles

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// gift is what giveDue has given a role: to be a member of a group, or, without one, to create schemas.
type gift struct{ subject, role, group string }

// giftsOf lists what the link has given and not taken back, by its notices.
func giftsOf(notices []catalog.Notice) (list []gift) {
	for _, n := range notices {
		g := gift{subject: n.Subject}
		if role, creates := strings.CutSuffix(n.Subject, " creates"); creates {
			g.role = role
		} else if at := strings.LastIndex(n.Subject, " in "); at > 0 {
			g.role, g.group = n.Subject[:at], n.Subject[at+len(" in "):]
		} else {
			continue
		}
		switch n.Code {
		case "role_taken":
			list = slices.DeleteFunc(list, func(other gift) bool { return other.subject == n.Subject })
		case "role_given":
			list = append(list, g)
		}
	}
	return list
}

// memberThere says whether a role is a member of a group, directly or not.
func memberThere(roles []pg.Role, name, group string) bool {
	seen := map[string]bool{}
	var in func(string) bool
	in = func(name string) bool {
		r := pg.RoleIn(roles, name)
		if r == nil || seen[name] {
			return false
		}
		seen[name] = true
		return slices.ContainsFunc(r.MemberOf, func(m pg.Membership) bool { return m.Role == group || in(m.Role) })
	}
	return in(name)
}

// takeBack takes from roles what the link has given them and the primary's have no more, as what one had for a migration
// alone. A change that was made before and is still to come gets it again. What somebody else has granted here stays.
func (k *Keeper) takeBack(ctx context.Context) error {
	gifts := giftsOf(k.side.Record().Notices)
	if len(gifts) == 0 {
		return nil
	}
	var names []string
	for _, g := range gifts {
		names = append(names, g.role)
	}
	answer, err := k.rightsThere(ctx, names)
	if err != nil {
		return err
	}
	gifts = slices.DeleteFunc(gifts, func(g gift) bool {
		if g.group == "" {
			return slices.Contains(answer.Creates, g.role)
		}
		r := pg.RoleIn(answer.Roles, g.role)
		return r != nil && r.Superuser || memberThere(answer.Roles, g.role, g.group)
	})
	if len(gifts) == 0 {
		return nil
	}
	k.instance.Lock.Lock()
	defer k.instance.Lock.Unlock()
	var notices []catalog.Notice
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, g := range gifts {
			has := `SELECT EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles b ON b.oid = m.grantor
				WHERE r.rolname = $1 AND g.rolname = $2 AND b.rolname = current_user)`
			take := "REVOKE " + sqlname.Quote(g.group) + " FROM " + sqlname.Quote(g.role)
			if g.group == "" {
				has = `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_database d ON d.datname = current_database() CROSS JOIN LATERAL pg_catalog.aclexplode(d.datacl) a
					WHERE r.rolname = $1 AND a.grantee = r.oid AND a.privilege_type = 'CREATE' AND $2 = '')`
				take = "REVOKE CREATE ON DATABASE " + sqlname.Quote(k.side.Database) + " FROM " + sqlname.Quote(g.role)
			}
			var have bool
			if err := conn.QueryRow(ctx, has, g.role, g.group).Scan(&have); err != nil {
				return pg.Classify(err, "look for what a role was given")
			}
			if !have { // who took it stays right, as before
				continue
			}
			if _, err := conn.Exec(ctx, take); err != nil {
				return pg.Classify(err, "take from a role what it has on the primary no more")
			}
			k.side.Log.Info("taken from a role", "subject", g.subject)
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "role_taken", Subject: g.subject, Text: "as on the primary, on the secondary: " + take})
		}
		return nil
	})
	return cmp.Or(err, k.side.Note(ctx, notices))
}
