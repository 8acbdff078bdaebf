// Package dbroles compares the database roles of both servers of a link: what each may do in the
// database, whether it could log in on the other side, and which settings its sessions get. It gives
// the twin's roles what they are due, and says what a role lacks: docs/design/0022-replay-with-rights.md.
// The roles of sides, primary and secondary, are in package role; package rights says with whose
// rights users' code runs.
package dbroles

import (
	"cmp"
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
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// MethodRights asks the primary who may do what in its database.
const MethodRights = "link.rights"

// RightsRequest asks for roles: those that are named, and those that they are members
// of, or where none is named all that the database needs.
type RightsRequest struct {
	side.Reference
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
	// Settings are those that the database gives to its sessions; nil of an older release, or
	// where roles were named.
	Settings []pg.Setting `json:"settings"`
}

// interval is how often a secondary compares the roles of both sides.
const interval = 15 * time.Second

// Instance is what the links of an instance share where its roles are concerned.
type Instance struct {
	Agent  string      // the name of the agent beside it
	Server *pg.DSN     // through its maintenance database
	Lock   *sync.Mutex // held while roles of the instance are made or given something
	// Linked lists the databases of this instance that links with the peer of the agent's id
	// have.
	Linked func(agent string) []string
}

// Keeper compares the roles of a twin's server with those of the primary's, and gives them what
// they lack as far as a link may. It works on both sides: the secondary asks, the primary answers.
type Keeper struct {
	side     *side.Side
	instance Instance

	mu       sync.Mutex           // guards what follows; nothing is asked while it is held
	there    map[string]pg.Role   // on the primary, as last heard
	creates  map[string]bool      // who could create schemas there when it was first looked, or since; nil before
	ordinary []ddl.Setting        // of an ordinary session here; nil is to be read
	used     map[string]time.Time // a primary's: when roles were last seen to use the database
}

// New returns the keeper of a side's roles.
func New(s *side.Side, instance Instance) *Keeper { return &Keeper{side: s, instance: instance} }

// Forget drops what a secondary knew, for the side has another role now. Who has used the
// database stays known.
func (k *Keeper) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.there, k.creates, k.ordinary = nil, nil, nil
}

// HandleRights answers for the primary.
func (k *Keeper) HandleRights(ctx context.Context, request RightsRequest) (RightsResponse, error) {
	var response RightsResponse
	if k.side.Role() != role.Primary {
		return response, problem.New(problem.Conflict, "not_primary", "this side is not the primary of the link").On(k.side.Name())
	}
	if err := k.side.SameEpoch(request.Reference); err != nil {
		return response, err
	}
	err := k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if len(request.Names) == 0 {
			if response.Settings, err = computingSettings(ctx, conn); err != nil {
				return err
			}
			response.Roles, err = pg.NeededRoles(ctx, conn)
			if err == nil && len(request.Nonce) > 0 {
				err = k.tellUse(ctx, conn, request.Nonce, &response)
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

// Run compares roles as long as the side is a secondary that follows.
func (k *Keeper) Run(ctx context.Context) {
	k.side.WhileFollowing(ctx, interval, func(catalog.Link) {
		k.ForgetOrdinary()
		// A primary of an older release, or one that is away, does not answer.
		if err := cmp.Or(k.Compare(ctx, nil), k.noteLogins(ctx)); err != nil && ctx.Err() == nil {
			k.side.Log.Debug("roles cannot be compared", "err", err)
		}
	})
}

// rightsThere asks the primary.
func (k *Keeper) rightsThere(ctx context.Context, names []string) (RightsResponse, error) {
	return k.askRights(ctx, RightsRequest{Names: names})
}

func (k *Keeper) askRights(ctx context.Context, request RightsRequest) (RightsResponse, error) {
	ctx, stop := context.WithTimeout(ctx, side.SessionTimeout)
	defer stop()
	request.Reference = k.side.Reference()
	answer, err := side.Call[RightsResponse](ctx, k.side, MethodRights, request)
	if err != nil {
		return answer, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.there == nil {
		k.there = map[string]pg.Role{}
	}
	for _, r := range answer.Roles {
		k.there[r.Name] = r
	}
	return answer, nil
}

// Compare compares roles of both sides, gives those that the link made what they
// are due, and notes as a problem what a role can less here. Without names it compares
// all that the database needs.
func (k *Keeper) Compare(ctx context.Context, names []string) error {
	answer, err := k.rightsThere(ctx, names)
	if err != nil {
		return err
	}
	agreed, err := k.side.Agreed(ctx, SuperuserCommands)
	if err != nil {
		return err
	}
	if _, err := k.giveDue(ctx, answer.Roles, k.newCreators(answer.Creates)); err != nil {
		return err
	}
	if len(names) > 0 {
		return nil
	}
	if err := k.noteSettings(ctx, answer.Settings); err != nil {
		return err
	}
	if err := k.takeBack(ctx); err != nil {
		return err
	}
	var lacks *problem.Error
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		here, err := pg.RolesNamed(ctx, conn, roleNames(answer.Roles))
		if err != nil {
			return err
		}
		can, err := creators(ctx, conn)
		if err != nil {
			return err
		}
		lacks = lesserRole(k.side.Name(), answer, here, can, k.side.Database, agreed)
		return nil
	})
	if err != nil {
		return err
	}
	k.side.Warn("role_lacks", lacks)
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
			remedy = append(remedy, fmt.Sprintf("twinspan link set %s --accept %s at the secondary's agent, or there: ALTER ROLE %s SUPERUSER", link, SuperuserCommands, quoted))
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
