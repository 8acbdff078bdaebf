package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// MethodRights asks the primary who may do what in its database.
const MethodRights = "link.rights"

// RightsRequest asks for roles: those that are named, and those that they are members
// of, or where none is named all that the database needs.
type RightsRequest struct {
	Reference
	Names []string `json:"names,omitempty"`
	// Nonce, when set, asks for digests of passwords by it, and for who has used the database.
	Nonce []byte `json:"nonce,omitempty"`
}

// RightsResponse answers it.
type RightsResponse struct {
	Roles   []pg.Role `json:"roles"`
	Creates []string  `json:"creates"` // those of all roles that may create schemas in the database
	// Digests are of what the primary's server keeps of passwords, by role; of those of
	// which a digest tells nothing.
	Digests map[string]string `json:"digests,omitempty"`
	// Used is when roles were last seen to use the database.
	Used map[string]time.Time `json:"used,omitempty"`
}

// rolesInterval is how often a secondary compares the roles of both sides.
const rolesInterval = 15 * time.Second

// roleBook is what a secondary knows of roles.
type roleBook struct {
	mu       sync.Mutex
	there    map[string]pg.Role   // on the primary, as last heard
	creates  map[string]bool      // who could create schemas there when it was first looked, or since; nil before
	ordinary []ddl.Setting        // of an ordinary session here; nil is to be read
	used     map[string]time.Time // a primary's: when roles were last seen to use the database
}

// HandleRights answers for the primary.
func (l *Link) HandleRights(ctx context.Context, request RightsRequest) (RightsResponse, error) {
	var response RightsResponse
	if l.Role() != role.Primary {
		return response, problem.New(problem.Conflict, "not_primary", "this side is not the primary of the link").On(l.Name())
	}
	if err := l.sameEpoch(request.Reference); err != nil {
		return response, err
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if len(request.Names) == 0 {
			response.Roles, err = pg.NeededRoles(ctx, conn)
			if err == nil && len(request.Nonce) > 0 {
				err = l.tellUse(ctx, conn, request.Nonce, &response)
			}
		} else {
			response.Roles, err = rolesAbove(ctx, conn, request.Names)
		}
		if err != nil {
			return err
		}
		response.Creates, err = creators(ctx, conn)
		return err
	})
	for i := range response.Roles { // of no use there
		response.Roles[i].Settings, response.Roles[i].Comment, response.Roles[i].Verifier = nil, "", ""
	}
	return response, err
}

// rolesAbove lists roles and those that they are members of, directly or not.
func rolesAbove(ctx context.Context, conn *pgx.Conn, names []string) ([]pg.Role, error) {
	rows, err := conn.Query(ctx, `WITH RECURSIVE up AS (
			SELECT oid FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[])
			UNION SELECT m.roleid FROM up JOIN pg_catalog.pg_auth_members m ON m.member = up.oid)
		SELECT r.rolname::text FROM up JOIN pg_catalog.pg_roles r ON r.oid = up.oid WHERE r.rolname NOT LIKE 'pg\_%' ORDER BY 1`, names)
	if err != nil {
		return nil, pg.Classify(err, "look for roles")
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, pg.Classify(err, "look for roles")
	}
	return pg.RolesNamed(ctx, conn, all)
}

// creators lists roles that were given CREATE on the database.
func creators(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_database d CROSS JOIN LATERAL pg_catalog.aclexplode(d.datacl) a
		JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE d.datname = current_database() AND a.privilege_type = 'CREATE' ORDER BY 1`)
	if err != nil {
		return nil, pg.Classify(err, "read the rights on the database")
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, pg.Classify(err, "read the rights on the database")
}

// rolesLoop compares roles as long as the side is a secondary that follows.
func (l *Link) rolesLoop(ctx context.Context) {
	l.whileFollowing(ctx, rolesInterval, func(catalog.Link) {
		l.roles.mu.Lock()
		l.roles.ordinary = nil
		l.roles.mu.Unlock()
		// A primary of an older release, or one that is away, does not answer.
		if err := firstOf(l.compareRoles(ctx, nil), l.noteLogins(ctx)); err != nil && ctx.Err() == nil {
			l.log.Debug("roles cannot be compared", "err", err)
		}
	})
}

// rightsThere asks the primary.
func (l *Link) rightsThere(ctx context.Context, names []string) (RightsResponse, error) {
	return l.askRights(ctx, RightsRequest{Names: names})
}

func (l *Link) askRights(ctx context.Context, request RightsRequest) (RightsResponse, error) {
	ctx, stop := context.WithTimeout(ctx, controlTimeout)
	defer stop()
	r := l.snapshot()
	var answer RightsResponse
	request.Reference = Reference{ID: r.ID, Epoch: r.Epoch}
	if err := l.place.Peers.Call(ctx, r.Peer, MethodRights, request, &answer); err != nil {
		return answer, err
	}
	l.roles.mu.Lock()
	defer l.roles.mu.Unlock()
	if l.roles.there == nil {
		l.roles.there = map[string]pg.Role{}
	}
	for _, r := range answer.Roles {
		l.roles.there[r.Name] = r
	}
	return answer, nil
}

// superuserThere says whether a role is a superuser of the primary.
func (l *Link) superuserThere(ctx context.Context, name string) (bool, error) {
	answer, err := l.rightsThere(ctx, []string{name})
	if err != nil {
		l.roles.mu.Lock()
		defer l.roles.mu.Unlock()
		if r, known := l.roles.there[name]; known {
			return r.Superuser, nil
		}
		if problem.Retry(err) {
			return false, err
		}
		return false, nil // a release that does not tell
	}
	r := pg.RoleIn(answer.Roles, name)
	return r != nil && r.Superuser, nil
}

// compareRoles compares roles of both sides, gives those that the link made what they
// are due, and notes as a problem what a role can less here. Without names it compares
// all that the database needs.
func (l *Link) compareRoles(ctx context.Context, names []string) error {
	answer, err := l.rightsThere(ctx, names)
	if err != nil {
		return err
	}
	agreed, err := l.agreed(ctx, superuserCommands)
	if err != nil {
		return err
	}
	if _, err := l.giveDue(ctx, answer.Roles, l.newCreators(answer.Creates)); err != nil {
		return err
	}
	if len(names) > 0 {
		return nil
	}
	if err := l.takeBack(ctx); err != nil {
		return err
	}
	var lacks *problem.Error
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		here, err := pg.RolesNamed(ctx, conn, roleNames(answer.Roles))
		if err != nil {
			return err
		}
		can, err := creators(ctx, conn)
		if err != nil {
			return err
		}
		lacks = lesserRole(l.Name(), answer, here, can, l.database, agreed)
		return nil
	})
	if err != nil {
		return err
	}
	l.setAside("role_lacks", lacks)
	return nil
}

func roleNames(roles []pg.Role) []string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.Name
	}
	return names
}

// lesserRole is the problem of the first role that is on both sides and can do less in
// the database here; nil when there is none.
func lesserRole(link string, there RightsResponse, here []pg.Role, creators []string, database string, agreed bool) *problem.Error {
	var first *problem.Error
	others := 0
	for _, want := range there.Roles {
		have := pg.RoleIn(here, want.Name)
		if have == nil || have.Superuser {
			continue
		}
		quoted := sqlname.Quote(want.Name)
		var lacks, remedy []string
		if want.Superuser && !agreed {
			lacks = append(lacks, "SUPERUSER")
			remedy = append(remedy, fmt.Sprintf("twinspan link set %s --accept %s at the secondary's agent, or there: ALTER ROLE %s SUPERUSER", link, superuserCommands, quoted))
		}
		if want.Superuser {
			// What it may by memberships it may as a superuser.
		} else {
			if want.BypassRLS && !have.BypassRLS {
				lacks, remedy = append(lacks, "BYPASSRLS"), append(remedy, "on the secondary: ALTER ROLE "+quoted+" BYPASSRLS")
			}
			for _, m := range want.MemberOf {
				if m.Usable() && !have.In(m.Role) && (pg.RoleIn(here, m.Role) != nil || strings.HasPrefix(m.Role, "pg_")) {
					lacks, remedy = append(lacks, "membership in "+m.Role), append(remedy, "on the secondary: GRANT "+sqlname.Quote(m.Role)+" TO "+quoted)
				}
			}
			if slices.Contains(there.Creates, want.Name) && !slices.Contains(creators, want.Name) {
				lacks, remedy = append(lacks, "CREATE on the database"), append(remedy, "on the secondary: GRANT CREATE ON DATABASE "+sqlname.Quote(database)+" TO "+quoted)
			}
		}
		if len(lacks) == 0 {
			continue
		}
		if first != nil {
			others++
			continue
		}
		first = problem.New(problem.Conflict, "role_lacks", "role %s can do less on the secondary: it is without %s, which it has on the primary; its next command that needs that will wait", want.Name, strings.Join(lacks, ", ")).
			On(want.Name).WithHint("%s", strings.Join(remedy, "; "))
	}
	if others > 0 {
		first.Text += fmt.Sprintf("; so can %d other roles", others)
	}
	return first
}

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

// giveDue gives roles that this link made the memberships that the primary's have, each
// once: what the secondary's operator takes back stays so. One of the two has to be
// of the link's making, and the group has to have power over this database alone, so
// that nobody gets more than the primary gives anyway. So may the creators, roles that were given
// CREATE on the primary's database meanwhile. It works outside of what is applied, in a
// session of its own, one link of the agent at a time.
func (l *Link) giveDue(ctx context.Context, there []pg.Role, creators map[string]bool) (gave bool, err error) {
	made, given := map[string]bool{}, map[string]bool{}
	for _, n := range l.snapshot().Notices {
		switch n.Code {
		case "role_created":
			made[n.Subject] = true
		case "role_given":
			given[n.Subject] = true
		case "role_taken":
			delete(given, n.Subject)
		}
	}
	type due struct {
		subject, group, sql string
		options             string // from version 16 on
	}
	var gifts []due
	for _, r := range there {
		quoted := sqlname.Quote(r.Name)
		for _, m := range r.MemberOf {
			if m.Usable() && (made[r.Name] || made[m.Role]) {
				gifts = append(gifts, due{r.Name + " in " + m.Role, m.Role, "GRANT " + sqlname.Quote(m.Role) + " TO " + quoted, optionsOf(m)})
			}
		}
		if creators[r.Name] {
			gifts = append(gifts, due{r.Name + " creates", "", "GRANT CREATE ON DATABASE " + sqlname.Quote(l.database) + " TO " + quoted, ""})
		}
	}
	gifts = slices.DeleteFunc(gifts, func(g due) bool { return g.group != "" && given[g.subject] })
	if len(gifts) == 0 {
		return false, nil
	}
	l.place.Roles.Lock()
	defer l.place.Roles.Unlock()
	databases := l.place.Linked(l.PeerAgent())
	var notices []catalog.Notice
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
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
	return len(notices) > 0, firstOf(err, l.note(ctx, notices))
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

// giveForChange gives the role of a change, by the rule of giveDue, what it had on the primary when it
// made the change: what is asked of the primary now may have been taken from it since, as from a role that
// is a member of others for a migration alone.
func (l *Link) giveForChange(ctx context.Context, change *ddl.Change) (gave bool, err error) {
	r := pg.Role{Name: string(change.Role)}
	l.roles.mu.Lock()
	known := l.roles.there[r.Name]
	l.roles.mu.Unlock()
	for _, g := range change.Member {
		m := pg.Membership{Role: string(g)}
		if i := slices.IndexFunc(known.MemberOf, func(k pg.Membership) bool { return k.Role == m.Role && k.Usable() }); i >= 0 {
			m = known.MemberOf[i]
		}
		r.MemberOf = append(r.MemberOf, m)
	}
	made := slices.ContainsFunc(l.snapshot().Notices, func(n catalog.Notice) bool { return n.Code == "role_created" && n.Subject == r.Name })
	return l.giveDue(ctx, []pg.Role{r}, map[string]bool{r.Name: change.Creates && made})
}

// newCreators are the roles that were given CREATE on the primary's database since it
// was first looked.
func (l *Link) newCreators(now []string) map[string]bool {
	l.roles.mu.Lock()
	defer l.roles.mu.Unlock()
	granted := map[string]bool{}
	for _, name := range now {
		granted[name] = l.roles.creates != nil && !l.roles.creates[name]
	}
	l.roles.creates = map[string]bool{}
	for _, name := range now {
		l.roles.creates[name] = true
	}
	return granted
}

// ensureRoles makes the roles that are missing, and tells the link's owner. It works
// outside of what is applied: another link, or another agent, may do the same now.
func (l *Link) ensureRoles(ctx context.Context, names []string) error {
	var missing, made []string
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT w FROM unnest($1::text[]) w WHERE w NOT IN (SELECT rolname FROM pg_catalog.pg_roles)`, names)
		if err != nil {
			return pg.Classify(err, "look for roles")
		}
		missing, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return pg.Classify(err, "look for roles")
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	// Those that they are members of are roles that a command may be made by.
	if answer, err := l.rightsThere(ctx, missing); err == nil {
		for _, r := range answer.Roles {
			if !r.Superuser && !slices.Contains(missing, r.Name) {
				missing = append(missing, r.Name)
			}
		}
	}
	l.place.Roles.Lock()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, name := range missing {
			var have bool
			if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)`, name).Scan(&have); err != nil {
				return pg.Classify(err, "look for roles")
			}
			if have {
				continue
			}
			switch _, err := conn.Exec(ctx, `CREATE ROLE `+sqlname.Quote(name)+` NOLOGIN`); pg.SQLState(err) {
			case "":
				if err != nil {
					return pg.Classify(err, "create the role "+name)
				}
				made = append(made, name)
			case "42710", "23505": // by somebody else, just now
			default:
				return pg.Classify(err, "create the role "+name)
			}
		}
		return nil
	})
	l.place.Roles.Unlock()
	if err != nil || len(made) == 0 {
		return err
	}
	if err := l.noteRoles(ctx, made); err != nil {
		return err
	}
	if err := l.compareRoles(ctx, made); err != nil {
		l.log.Debug("roles cannot be compared", "err", err)
	}
	return nil
}
