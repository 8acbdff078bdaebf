package pg

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// HBARule is a line of pg_hba.conf as the server shows it (manual,
// "pg_hba_file_rules").
type HBARule struct {
	Type      string // local, host, hostssl, ...
	Databases []string
	Users     []string
	Method    string
	Address   string // "" of a local rule
}

// HBARules lists the rules of a server in the order in which it tries them. Lines
// that it does not understand are left out, as the server leaves out the whole file
// until they are mended. It needs a superuser.
func HBARules(ctx context.Context, q Rows) ([]HBARule, error) {
	rows, err := q.Query(ctx, `SELECT type, database, user_name, auth_method, coalesce(address, '') FROM pg_catalog.pg_hba_file_rules WHERE error IS NULL ORDER BY coalesce((to_jsonb(pg_hba_file_rules)->>'rule_number')::int, line_number)`)
	if err != nil {
		return nil, Classify(err, "read pg_hba.conf")
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[HBARule])
	return list, Classify(err, "read pg_hba.conf")
}

// Admitted says whether a rule lets a role, a member of groups, connect to a database
// from anywhere, and by which methods. What is not known for certain, such as an
// address, counts as let in.
func Admitted(rules []HBARule, database, role string, groups []string) (methods []string) {
	for _, r := range rules {
		if !named(r.Databases, database, role, groups, false) || !named(r.Users, role, role, groups, true) {
			continue
		}
		if r.Method != "reject" {
			methods = append(methods, r.Method)
			continue
		}
		if r.Address == "all" || r.Address == "0.0.0.0" { // nobody but those before, and over the socket
			return methods
		}
	}
	return methods
}

// named says whether a list of pg_hba.conf names something (hba.c, check_db and
// check_role).
func named(list []string, name, role string, groups []string, users bool) bool {
	for _, n := range list {
		switch {
		case n == "all" || n == name:
			return true
		case users && strings.HasPrefix(n, "+"):
			if n[1:] == role || slices.Contains(groups, n[1:]) {
				return true
			}
		case !users && n == "sameuser":
			if name == role {
				return true
			}
		case !users && (n == "samerole" || n == "samegroup"):
			if name == role || slices.Contains(groups, name) {
				return true
			}
		case strings.HasPrefix(n, "/"):
			// PostgreSQL's own expressions are a superset: one that is not understood may match.
			if e, err := regexp.Compile(n[1:]); err != nil || e.MatchString(name) {
				return true
			}
		}
	}
	return false
}
