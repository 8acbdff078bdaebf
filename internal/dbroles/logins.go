package dbroles

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which the primary's operator sees and brings roles at the secondary.
const (
	MethodShow  = "roles.show"  // how do they compare?
	MethodBring = "roles.bring" // give yours what these have
)

// BringRequest gives the secondary's agent roles as the primary has them.
type BringRequest struct {
	side.Reference
	Roles []pg.Role `json:"roles"`
}

// BringAnswer says what became of them.
type BringAnswer struct {
	Done []api.RoleDone `json:"done"`
}

const (
	// usersInterval is how often a primary looks who uses its database.
	usersInterval = 5 * time.Second
	// usedFor is for how long a role counts as one that uses it.
	usedFor = 24 * time.Hour
)

// RememberUsers remembers which roles use a primary's database. What was seen is forgotten
// with the agent.
func (k *Keeper) RememberUsers(ctx context.Context) {
	tick := time.NewTicker(usersInterval)
	defer tick.Stop()
	for {
		if !k.side.Record().Deleting {
			if err := k.lookWhoUses(ctx); err != nil && ctx.Err() == nil {
				k.side.Log.Debug("it is not known who uses the database", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (k *Keeper) lookWhoUses(ctx context.Context) error {
	return k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT DISTINCT usename::text FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND usename IS NOT NULL
			AND backend_type = 'client backend' AND NOT (application_name LIKE 'twinspan/%' AND usename = session_user)`)
		if err != nil {
			return pg.Classify(err, "look who uses the database")
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return pg.Classify(err, "look who uses the database")
		}
		now := time.Now().UTC()
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.used == nil {
			k.used = map[string]time.Time{}
		}
		for _, name := range names {
			k.used[name] = now
		}
		for name, at := range k.used {
			if now.Sub(at) > usedFor {
				delete(k.used, name)
			}
		}
		return nil
	})
}

// tellUse adds to an answer who has used the database, those that need it for nothing else
// included, and digests of passwords.
func (k *Keeper) tellUse(ctx context.Context, conn *pgx.Conn, nonce []byte, response *RightsResponse) error {
	k.mu.Lock()
	response.Used = map[string]time.Time{}
	var others []string
	for name, at := range k.used {
		response.Used[name] = at
		if pg.RoleIn(response.Roles, name) == nil {
			others = append(others, name)
		}
	}
	k.mu.Unlock()
	more, err := pg.RolesNamed(ctx, conn, others)
	if err != nil {
		return err
	}
	response.Roles = append(response.Roles, more...)
	slices.SortFunc(response.Roles, func(a, b pg.Role) int { return strings.Compare(a.Name, b.Name) })
	err = pg.ReadPasswords(ctx, conn, response.Roles, true)
	if pg.SQLState(err) == "42501" {
		return nil // a role that may not read them, and then tells nothing of them
	}
	response.Digests = digests(nonce, response.Roles)
	return err
}

// digests are of the verifiers of roles. One of scram-sha-256 has a salt that nobody else
// knows, so a digest helps nobody to guess the password; of the others none is made.
func digests(nonce []byte, roles []pg.Role) map[string]string {
	all := map[string]string{}
	for _, r := range roles {
		if strings.HasPrefix(string(r.Verifier), "SCRAM-SHA-256$") {
			h := hmac.New(sha256.New, nonce)
			h.Write([]byte(r.Name + "\x00" + string(r.Verifier)))
			all[r.Name] = hex.EncodeToString(h.Sum(nil))
		}
	}
	return all
}

// twinRoles is what the secondary's server says of roles.
type twinRoles struct {
	roles   []pg.Role
	digests map[string]string
	rules   []pg.HBARule // nil when they cannot be read
	groups  map[string][]string
	connect map[string]bool // may connect to the database
}

func (k *Keeper) rolesHere(ctx context.Context, nonce []byte, names []string) (here twinRoles, err error) {
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if here.roles, err = pg.RolesNamed(ctx, conn, names); err != nil {
			return err
		}
		if err := pg.ReadPasswords(ctx, conn, here.roles, true); err != nil {
			return err
		}
		here.digests = digests(nonce, here.roles)
		if here.rules, err = pg.HBARules(ctx, conn); err != nil {
			k.side.Log.Debug("pg_hba.conf cannot be read", "err", err)
			here.rules = nil
		}
		rows, err := conn.Query(ctx, `SELECT m.rolname::text, pg_catalog.has_database_privilege(m.oid, pg_catalog.current_database(), 'CONNECT'),
			array(SELECT g.rolname::text FROM pg_catalog.pg_roles g WHERE pg_catalog.pg_has_role(m.oid, g.oid, 'MEMBER')) FROM pg_catalog.pg_roles m WHERE m.rolname = ANY ($1)`, names)
		if err != nil {
			return pg.Classify(err, "look at roles")
		}
		here.groups, here.connect = map[string][]string{}, map[string]bool{}
		var name string
		var may bool
		var groups []string
		_, err = pgx.ForEachRow(rows, []any{&name, &may, &groups}, func() error {
			here.groups[name], here.connect[name] = slices.Clone(groups), may
			return nil
		})
		return pg.Classify(err, "look at roles")
	})
	return here, err
}

// compareLogins says how the roles of the primary stand on the secondary.
func compareLogins(there RightsResponse, here twinRoles, database string) []api.LinkRole {
	list := []api.LinkRole{}
	for _, want := range there.Roles {
		out := api.LinkRole{Name: want.Name, State: api.RoleSame, Lacks: []string{}, Password: api.PasswordUnknown}
		if at, used := there.Used[want.Name]; used {
			out.UsedAt = &at
		}
		have := pg.RoleIn(here.roles, want.Name)
		if have == nil {
			out.State = api.RoleMissing
		} else {
			out.Lacks = append(out.Lacks, schema.Lacking(want, *have)...)
			if want.Superuser && !have.Superuser {
				out.Lacks = append(out.Lacks, "SUPERUSER")
			}
			for _, m := range want.MemberOf {
				if !have.Superuser && !have.In(m.Role) {
					out.Lacks = append(out.Lacks, "membership in "+m.Role)
				}
			}
			if len(out.Lacks) > 0 {
				out.State = api.RoleDiffers
			}
		}
		out.Password = comparePasswords(want, have, there.Digests, here.digests)
		if want.Login {
			out.Refused = refused(want, have, here, database)
		}
		list = append(list, out)
	}
	return list
}

func comparePasswords(want pg.Role, have *pg.Role, there, here map[string]string) api.RolePassword {
	switch {
	case there == nil: // an older release, or one whose role may not read them
		return api.PasswordUnknown
	case !want.Password:
		return api.PasswordNone
	case have == nil || !have.Password:
		return api.PasswordMissing
	case there[want.Name] == "" || here[want.Name] == "":
		return api.PasswordUnknown
	case there[want.Name] == here[want.Name]:
		return api.PasswordSame
	}
	return api.PasswordDiffers
}

// refused says why a role that logs in on the primary could not on the secondary, where it
// may be missing; "" when nothing is known against it.
func refused(want pg.Role, have *pg.Role, here twinRoles, database string) string {
	switch {
	case have == nil:
		return "it is missing there"
	case !have.Login:
		return "it may not log in there"
	case have.Limit == 0:
		return "its limit of connections is 0 there"
	case !have.Superuser && !here.connect[want.Name]:
		return "it has no right to connect to the database there"
	case here.rules == nil:
		return ""
	}
	methods := pg.Admitted(here.rules, database, want.Name, here.groups[want.Name])
	asks := func(method string) bool { return slices.Contains([]string{"md5", "password", "scram-sha-256"}, method) }
	switch {
	case len(methods) == 0:
		return "no line of pg_hba.conf lets it connect to the database there"
	case want.Password && !have.Password && !slices.ContainsFunc(methods, func(m string) bool { return !asks(m) && m != "peer" }):
		return "it has no password there"
	}
	return ""
}

// compared asks the primary and compares, on the secondary.
func (k *Keeper) compared(ctx context.Context) ([]api.LinkRole, RightsResponse, error) {
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails (crypto/rand)
	there, err := k.askRights(ctx, RightsRequest{Nonce: nonce})
	if err != nil {
		return nil, there, err
	}
	here, err := k.rolesHere(ctx, nonce, roleNames(there.Roles))
	if err != nil {
		return nil, there, err
	}
	return compareLogins(there, here, k.side.Database), there, nil
}

// noteLogins notes as a problem that a role which uses the primary could not log in here.
func (k *Keeper) noteLogins(ctx context.Context) error {
	list, _, err := k.compared(ctx)
	if err != nil {
		return err
	}
	k.side.Warn("role_cannot_log_in", cannotLogIn(list, k.side.Name(), k.side.Database))
	return nil
}

func cannotLogIn(list []api.LinkRole, link, database string) *problem.Error {
	var first *problem.Error
	others := 0
	for _, r := range list {
		if r.UsedAt == nil || r.Refused == "" {
			continue
		}
		if first != nil {
			others++
			continue
		}
		first = problem.New(problem.Conflict, "role_cannot_log_in", "role %s uses the primary and could not log in on the secondary: %s", r.Name, r.Refused).On(r.Name).
			WithHint("twinspan link roles %[1]s shows what roles lack there, twinspan link roles %[1]s --apply brings it; what pg_hba.conf refuses has to be allowed there for database %[2]s", link, database)
	}
	if others > 0 {
		first.Text += fmt.Sprintf("; so could %d other roles not", others)
	}
	return first
}

// Show compares the roles of both sides, on whichever it is asked for.
func (k *Keeper) Show(ctx context.Context) (api.LinkRoles, error) {
	ref := k.side.Reference()
	return side.OnSecondary(ctx, k.side, MethodShow, ref, func(ctx context.Context) (api.LinkRoles, error) { return k.HandleShow(ctx, ref) })
}

// HandleShow compares for the primary's operator.
func (k *Keeper) HandleShow(ctx context.Context, r side.Reference) (api.LinkRoles, error) {
	out := api.LinkRoles{Link: k.side.Name(), Agent: k.instance.Agent}
	if err := k.side.SecondaryAt(r); err != nil {
		return out, err
	}
	list, _, err := k.compared(ctx)
	out.Roles = list
	return out, err
}

// Bring gives the secondary's roles what they lack, and compares again. Passwords
// cross only when the primary's operator asks for it.
func (k *Keeper) Bring(ctx context.Context, in api.BringRoles) (api.LinkRoles, error) {
	r := k.side.Record()
	var answer BringAnswer
	if role.Role(r.Role) == role.Secondary {
		if in.WithPasswords {
			return api.LinkRoles{}, problem.New(problem.Unauthorised, "passwords_there", "passwords are sent only when the primary's operator asks for it").On(r.Name).
				WithHint("at agent %s: twinspan link roles %s --apply --with-passwords", r.Peer, r.Name)
		}
		_, there, err := k.compared(ctx)
		if err == nil {
			answer.Done, err = k.bring(ctx, there.Roles)
		}
		if err != nil {
			return api.LinkRoles{}, err
		}
	} else {
		request := BringRequest{Reference: side.ReferenceOf(r)}
		err := k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			var all RightsResponse
			var err error
			if all.Roles, err = pg.NeededRoles(ctx, conn); err != nil {
				return err
			}
			if err := k.tellUse(ctx, conn, []byte(r.ID), &all); err != nil {
				return err
			}
			request.Roles = all.Roles
			for i := range request.Roles {
				if !in.WithPasswords {
					request.Roles[i].Verifier = ""
				}
			}
			return nil
		})
		if err != nil {
			return api.LinkRoles{}, err
		}
		if answer, err = side.Call[BringAnswer](ctx, k.side, MethodBring, request); err != nil {
			return api.LinkRoles{}, err
		}
	}
	out, err := k.Show(ctx)
	out.Done = answer.Done
	return out, err
}

// HandleBring does it for the primary's operator, who may make roles here, and change
// those alone that came with the link: what others are is for this side to decide.
func (k *Keeper) HandleBring(ctx context.Context, request BringRequest) (BringAnswer, error) {
	if err := k.side.SecondaryAt(request.Reference); err != nil {
		return BringAnswer{}, err
	}
	made := map[string]bool{}
	for _, n := range k.side.Record().Notices {
		made[n.Subject] = made[n.Subject] || n.Code == "role_created"
	}
	here, err := k.rolesHere(ctx, []byte(request.ID), roleNames(request.Roles))
	if err != nil {
		return BringAnswer{}, err
	}
	var answer BringAnswer
	ours := slices.DeleteFunc(slices.Clone(request.Roles), func(want pg.Role) bool {
		have := pg.RoleIn(here.roles, want.Name)
		if have == nil || made[want.Name] {
			return false
		}
		lacks := schema.Lacking(want, *have)
		if len(lacks) > 0 || want.Verifier != "" && !have.Password && !have.Superuser {
			answer.Done = append(answer.Done, api.RoleDone{Name: want.Name, Text: fmt.Sprintf("is left as it is, for it did not come with the link; its owner may change it: twinspan link roles %s --apply at agent %s", k.side.Name(), k.instance.Agent)})
		}
		return true
	})
	done, err := k.bring(ctx, ours)
	answer.Done = append(done, answer.Done...)
	return answer, err
}

// bring makes roles that are missing here, and gives the others what they lack.
func (k *Keeper) bring(ctx context.Context, roles []pg.Role) (done []api.RoleDone, err error) {
	k.instance.Lock.Lock()
	defer k.instance.Lock.Unlock()
	made, err := schema.CreateRoles(ctx, k.instance.Server, k.side.Name(), roles)
	if err != nil {
		return nil, err
	}
	var notices []catalog.Notice
	for _, r := range made {
		text := describe(r)
		done = append(done, api.RoleDone{Name: r.Name, Text: text})
		notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "role_created", Subject: r.Name, Text: text})
	}
	aligned, err := schema.AlignRoles(ctx, k.instance.Server, k.side.Name(), roles)
	for _, r := range aligned {
		if slices.ContainsFunc(made, func(m schema.CreatedRole) bool { return m.Name == r.Name }) && len(r.Given) == 0 {
			continue // which has been said
		}
		var text []string
		if len(r.Given) > 0 {
			text = append(text, "was given "+strings.Join(r.Given, ", "))
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "role_given", Subject: r.Name, Text: "as on the primary: " + strings.Join(r.Given, ", ")})
		}
		if len(r.Left) > 0 {
			text = append(text, "was not given "+strings.Join(r.Left, ", ")+", which is for the instance's owner to give")
		}
		done = append(done, api.RoleDone{Name: r.Name, Text: strings.Join(text, "; ")})
	}
	return done, cmp.Or(err, k.side.Note(ctx, notices))
}
