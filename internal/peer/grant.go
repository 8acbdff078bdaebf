package peer

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// Direction is which way the rows of a link go, seen from the agent that grants.
type Direction string

// The directions.
const (
	FromHere Direction = "from-here" // a database of this side is copied to the peer
	ToHere   Direction = "to-here"   // a database of the peer is copied to this side
)

// Operation is something that a peer may ask for.
type Operation string

// The operations.
const (
	OpLink     Operation = "link"     // make a link, copy and follow, compare and repair
	OpRoles    Operation = "roles"    // make roles on this side's instance
	OpFailover Operation = "failover" // have the sides change places, discard what was lost, rejoin
	OpDelete   Operation = "delete"   // remove this side of a link
)

// Directions and Operations are all there are.
func Directions() []Direction { return []Direction{FromHere, ToHere} }

// Operations lists all operations.
func Operations() []Operation { return []Operation{OpLink, OpRoles, OpFailover, OpDelete} }

// AnyDatabase is the name that stands for every database in a grant.
const AnyDatabase = "*"

// maxGrants bounds the grants of a peer; maxDatabase the name of a database in bytes,
// with which PostgreSQL has no use beyond 63.
const (
	maxGrants   = 1000
	maxDatabase = 63
)

// Grant lets a peer do things with databases of this side's instance. What no grant
// names is refused: to be a peer is to be let in and measured, no more.
type Grant struct {
	Database   string      `toml:"database" json:"database"` // a name, or AnyDatabase
	Direction  Direction   `toml:"direction" json:"direction"`
	Operations []Operation `toml:"operations" json:"operations"`
	// Link is the id of the link with which the grant came and goes; "" for one that
	// an operator gave.
	Link string `toml:"link,omitempty" json:"link,omitempty"`
}

// Allows says whether the peer may do it with the database in the direction; a direction
// of "" is either.
func (p Peer) Allows(database string, direction Direction, op Operation) bool {
	return slices.ContainsFunc(p.Grants, func(g Grant) bool {
		return (g.Database == AnyDatabase || g.Database == database) && (direction == "" || g.Direction == direction) && slices.Contains(g.Operations, op)
	})
}

// Check says what is wrong with a grant.
func (g Grant) Check() error {
	wrong := func(format string, args ...any) error {
		return problem.New(problem.Invalid, "grant_invalid", format, args...).
			WithHint("a grant has a database or *, a direction (from-here, to-here) and operations (link, roles, failover, delete)")
	}
	switch {
	case g.Database == "" || len(g.Database) > maxDatabase && g.Database != AnyDatabase || strings.ContainsRune(g.Database, 0):
		return wrong("%.80q is no database of a grant", g.Database)
	case !slices.Contains(Directions(), g.Direction):
		return wrong("%.80q is no direction of a grant", g.Direction)
	case len(g.Operations) == 0:
		return wrong("the grant names no operation")
	}
	for _, op := range g.Operations {
		if !slices.Contains(Operations(), op) {
			return wrong("%.80q is no operation of a grant", op)
		}
	}
	if g.Link != "" && !uuidPattern.MatchString(g.Link) {
		return wrong("%.80q is no link of a grant", g.Link)
	}
	return nil
}

// Merge adds grants to those there are, each database, direction and link once, in the
// order of their names.
func Merge(have, more []Grant) []Grant {
	out := slices.Clone(have)
	for _, g := range more {
		i := slices.IndexFunc(out, func(o Grant) bool { return o.Database == g.Database && o.Direction == g.Direction && o.Link == g.Link })
		if i < 0 {
			g.Operations = ordered(g.Operations)
			out = append(out, g)
			continue
		}
		out[i].Operations = ordered(append(slices.Clone(out[i].Operations), g.Operations...))
	}
	slices.SortStableFunc(out, compareGrants)
	return out
}

// Without takes operations away from grants: those of the database and direction that
// gone names, whichever link they came with.
func Without(have, gone []Grant) []Grant {
	out := []Grant{}
	for _, g := range have {
		for _, r := range gone {
			if g.Database == r.Database && g.Direction == r.Direction {
				g.Operations = slices.DeleteFunc(slices.Clone(g.Operations), func(op Operation) bool { return slices.Contains(r.Operations, op) })
			}
		}
		if len(g.Operations) > 0 {
			out = append(out, g)
		}
	}
	return out
}

func ordered(ops []Operation) []Operation {
	out := []Operation{}
	for _, op := range Operations() {
		if slices.Contains(ops, op) {
			out = append(out, op)
		}
	}
	return out
}

func compareGrants(a, b Grant) int {
	if c := strings.Compare(a.Database, b.Database); c != 0 {
		return c
	}
	if c := strings.Compare(string(a.Direction), string(b.Direction)); c != 0 {
		return c
	}
	return strings.Compare(a.Link, b.Link)
}

// LinkGrants is what the two sides of a link on the database may ask of each other.
func LinkGrants(database, link string) []Grant {
	var list []Grant
	for _, d := range Directions() {
		list = append(list, Grant{Database: database, Direction: d, Operations: []Operation{OpLink, OpFailover, OpDelete}, Link: link})
	}
	return list
}

// JoinedGrants is what an agent that joins lets the inviter do unless its operator says
// otherwise: make twins of its databases here, which is what it was invited to.
func JoinedGrants() []Grant {
	return []Grant{{Database: AnyDatabase, Direction: ToHere, Operations: []Operation{OpLink, OpRoles}}}
}

func checkGrants(list []Grant) error {
	if len(list) > maxGrants {
		return problem.New(problem.Resource, "grants_many", "more than %d grants", maxGrants)
	}
	for _, g := range list {
		if err := g.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Grant lets a peer do more.
func (b *Book) Grant(name string, more []Grant) error {
	return b.update(name, func(p *Peer) { p.Grants = Merge(p.Grants, more) })
}

// Revoke lets a peer do less, from its next request on.
func (b *Book) Revoke(name string, gone []Grant) error {
	return b.update(name, func(p *Peer) { p.Grants = Without(p.Grants, gone) })
}

// EndLinkGrants takes away what came with links, except those that keep names. Peers that
// have none of them stay as they are.
func (b *Book) EndLinkGrants(keep func(link string) bool) error {
	for _, p := range b.List() {
		ends := func(g Grant) bool { return g.Link != "" && !keep(g.Link) }
		if !slices.ContainsFunc(p.Grants, ends) {
			continue
		}
		if err := b.update(p.Name, func(p *Peer) { p.Grants = slices.DeleteFunc(p.Grants, ends) }); err != nil && problem.CodeOf(err) != "peer_unknown" {
			return err
		}
	}
	return nil
}
