package dbroles

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// confinedSQL says whether a role has power over this database alone: no attribute, no
// membership but in roles of that kind, nothing of its own or granted elsewhere than
// here and in databases of other links with the same peer.
const confinedSQL = `WITH RECURSIVE up AS (
	SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1
	UNION SELECT m.roleid FROM up JOIN pg_catalog.pg_auth_members m ON m.member = up.oid)
SELECT coalesce(bool_and(NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls) AND r.rolname NOT LIKE 'pg\_%'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend d LEFT JOIN pg_catalog.pg_database b ON b.oid = CASE WHEN d.dbid <> 0 THEN d.dbid
                              WHEN d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass THEN d.objid END
                        WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = r.oid
                          AND (b.oid IS NULL OR b.datname <> current_database() AND b.datname <> ALL ($2::text[])))), false)
  FROM up JOIN pg_catalog.pg_roles r ON r.oid = up.oid`

// due is what a role is to be given: to be a member of a group, or, without one, to create
// schemas.
type due struct {
	subject, group, sql string
	options             string // from version 16 on
}

// dues lists what roles are due, by what the link has made, given and taken before.
func dues(there []pg.Role, creators map[string]bool, notices []catalog.Notice, database string) []due {
	made, given := map[string]bool{}, map[string]bool{}
	for _, n := range notices {
		switch n.Code {
		case "role_created":
			made[n.Subject] = true
		case "role_given":
			given[n.Subject] = true
		case "role_taken":
			delete(given, n.Subject)
		}
	}
	var list []due
	for _, r := range there {
		quoted := sqlname.Quote(r.Name)
		for _, m := range r.MemberOf {
			if m.Usable() && (made[r.Name] || made[m.Role]) {
				list = append(list, due{r.Name + " in " + m.Role, m.Role, "GRANT " + sqlname.Quote(m.Role) + " TO " + quoted, optionsOf(m)})
			}
		}
		if creators[r.Name] {
			list = append(list, due{r.Name + " creates", "", "GRANT CREATE ON DATABASE " + sqlname.Quote(database) + " TO " + quoted, ""})
		}
	}
	return slices.DeleteFunc(list, func(d due) bool { return d.group != "" && given[d.subject] })
}

// giveDue gives roles that this link made the memberships that the primary's have, each
// once: what the secondary's operator takes back stays so. One of the two has to be
// of the link's making, and the group has to have power over this database alone, so
// that nobody gets more than the primary gives anyway. So may the creators, roles that were given
// CREATE on the primary's database meanwhile. It works outside of what is applied, in a
// session of its own, one link of the agent at a time.
func (k *Keeper) giveDue(ctx context.Context, there []pg.Role, creators map[string]bool) (gave bool, err error) {
	gifts := dues(there, creators, k.side.Record().Notices, k.side.Database)
	if len(gifts) == 0 {
		return false, nil
	}
	k.instance.Lock.Lock()
	defer k.instance.Lock.Unlock()
	databases := k.instance.Linked(k.side.Record().PeerAgent)
	var notices []catalog.Notice
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var knowsOptions bool
		if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int >= 160000`).Scan(&knowsOptions); err != nil {
			return pg.Classify(err, "read the server's version")
		}
		for _, g := range gifts {
			if knowsOptions {
				g.sql += g.options
			}
			var lacks bool
			err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1 AND ($2 <> '' OR NOT has_database_privilege(oid, current_database(), 'CREATE')))
				AND ($2 = '' OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $2))`,
				strings.TrimSuffix(strings.TrimSuffix(g.subject, " creates"), " in "+g.group), g.group).Scan(&lacks)
			if err != nil {
				return pg.Classify(err, "look for roles")
			}
			if !lacks {
				continue
			}
			if g.group != "" {
				var confined bool
				if err := conn.QueryRow(ctx, confinedSQL, g.group, databases).Scan(&confined); err != nil {
					return pg.Classify(err, "look at the role "+g.group)
				}
				if !confined {
					continue
				}
			}
			if _, err := conn.Exec(ctx, g.sql); err != nil {
				return pg.Classify(err, "give a role what it has on the primary")
			}
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "role_given", Subject: g.subject, Text: "as on the primary, on the secondary: " + g.sql})
		}
		return nil
	})
	return len(notices) > 0, cmp.Or(err, k.side.Note(ctx, notices))
}

// optionsOf are those of a GRANT that gives no more than a membership of the primary does. Before version 16 a membership has none.
func optionsOf(m pg.Membership) string {
	var options []string
	if m.Inherit != nil {
		options = append(options, fmt.Sprintf("INHERIT %t", *m.Inherit))
	}
	if m.Set != nil {
		options = append(options, fmt.Sprintf("SET %t", *m.Set))
	}
	if len(options) == 0 {
		return ""
	}
	return " WITH " + strings.Join(options, ", ")
}

// GiveForChange gives the role of a change, by the rule of giveDue, what it had on the primary when it
// made the change: what is asked of the primary now may have been taken from it since, as from a role that
// is a member of others for a migration alone.
func (k *Keeper) GiveForChange(ctx context.Context, change *ddl.Change) (gave bool, err error) {
	r := pg.Role{Name: string(change.Role)}
	k.mu.Lock()
	known := k.there[r.Name]
	k.mu.Unlock()
	for _, g := range change.Member {
		m := pg.Membership{Role: string(g)}
		if i := slices.IndexFunc(known.MemberOf, func(k pg.Membership) bool { return k.Role == m.Role && k.Usable() }); i >= 0 {
			m = known.MemberOf[i]
		}
		r.MemberOf = append(r.MemberOf, m)
	}
	made := slices.ContainsFunc(k.side.Record().Notices, func(n catalog.Notice) bool { return n.Code == "role_created" && n.Subject == r.Name })
	return k.giveDue(ctx, []pg.Role{r}, map[string]bool{r.Name: change.Creates && made})
}

// newCreators are the roles that were given CREATE on the primary's database since it
// was first looked.
func (k *Keeper) newCreators(now []string) map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	granted := map[string]bool{}
	for _, name := range now {
		granted[name] = k.creates != nil && !k.creates[name]
	}
	k.creates = map[string]bool{}
	for _, name := range now {
		k.creates[name] = true
	}
	return granted
}
