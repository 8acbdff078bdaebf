package dbroles

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/drift"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// lack is a right that is missing, as the server says it (aclchk.c, aclcheck_error;
// acl.c, check_can_set_role).
type lack struct {
	kind   string // of the object: schema, table, ...; "owner", "member" or "superuser"
	of     string // kind of the object whose owner one has to be
	object string // its name as the server prints it, without schema and quotes
}

// kinds are what the server calls objects in such words.
const kinds = `materialized view|foreign table|foreign-data wrapper|foreign server|statistics object|text search configuration|text search dictionary|operator class|operator family|` +
	`schema|database|table|view|sequence|index|function|procedure|routine|aggregate|type|domain|language|relation|operator|collation|conversion|extension|tablespace`

var (
	deniedTo = regexp.MustCompile(`^permission denied for (` + kinds + `) "?(.+?)"?$`)
	mustOwn  = regexp.MustCompile(`^must be owner of (?:(` + kinds + `) )?"?(.+?)"?$`)
	memberOf = regexp.MustCompile(`^must be (?:able to SET ROLE|member of role|a member of the role) "(.+)"`)
)

// parseLack takes the server's words apart, which are English in an applier's session.
// Those that it does not know are shown as they are.
func parseLack(message string) lack {
	if m := memberOf.FindStringSubmatch(message); m != nil {
		return lack{kind: "member", object: m[1]}
	}
	if m := mustOwn.FindStringSubmatch(message); m != nil {
		return lack{kind: "owner", of: m[1], object: m[2]}
	}
	if strings.HasPrefix(message, "permission denied to ") || strings.HasPrefix(message, "must be superuser") || strings.Contains(message, "must be a superuser") {
		return lack{kind: "superuser"}
	}
	if m := deniedTo.FindStringSubmatch(message); m != nil {
		return lack{kind: m[1], object: m[2]}
	}
	return lack{}
}

// rightsOf are the rights that a command may lack on an object, the likeliest first.
func rightsOf(kind, tag string) (rights []string, word, function string) {
	switch kind {
	case "schema":
		return []string{"USAGE", "CREATE"}, "SCHEMA", "has_schema_privilege"
	case "database":
		return []string{"CREATE", "TEMPORARY"}, "DATABASE", "has_database_privilege"
	case "table", "view", "materialized view", "foreign table", "relation":
		rights = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER", "REFERENCES"}
		switch {
		case strings.Contains(tag, "TRIGGER"):
			rights = []string{"TRIGGER"}
		case tag == "CREATE TABLE" || tag == "ALTER TABLE":
			rights = []string{"REFERENCES", "SELECT", "UPDATE"}
		}
		return rights, "TABLE", "has_table_privilege"
	case "sequence":
		return []string{"USAGE", "SELECT", "UPDATE"}, "SEQUENCE", "has_sequence_privilege"
	case "function", "procedure", "routine", "aggregate":
		return []string{"EXECUTE"}, "ROUTINE", ""
	case "type":
		return []string{"USAGE"}, "TYPE", ""
	case "language":
		return []string{"USAGE"}, "LANGUAGE", "has_language_privilege"
	case "foreign-data wrapper":
		return []string{"USAGE"}, "FOREIGN DATA WRAPPER", "has_foreign_data_wrapper_privilege"
	case "foreign server":
		return []string{"USAGE"}, "FOREIGN SERVER", "has_server_privilege"
	}
	return nil, "", ""
}

// ExplainLack says what a change lacks: the right, the role, the object and what gives
// it. filled is the materialized view that may be filled with the agent's rights, for
// its owner may everything on the primary and the twin's operator agreed.
func (k *Keeper) ExplainLack(ctx context.Context, change *ddl.Change, cause error) (waits *problem.Error, filled string, err error) {
	agreed, err := k.side.Agreed(ctx, SuperuserCommands)
	if err != nil {
		return nil, "", err
	}
	who := string(change.Role)
	what := lack{}
	var server *pg.ServerError
	if errors.As(cause, &server) {
		what = parseLack(server.Message)
	}
	var remedy, right string
	asOwner := false
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if fills(change.Tag) && what.kind != "owner" && what.kind != "superuser" && len(change.Objects) > 0 {
			// Its query runs as its owner.
			err := conn.QueryRow(ctx, `SELECT relowner::regrole::text FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1) AND relkind = 'm'`, change.Subject()).Scan(&who)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return pg.Classify(err, "look for a view's owner")
			}
			who, asOwner = strings.ReplaceAll(strings.Trim(who, `"`), `""`, `"`), err == nil
		}
		var err error
		right, remedy, err = remedyOf(ctx, conn, what, who, change.Tag)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	super, err := k.wasSuperuser(ctx, change, who)
	if err != nil {
		super = false // it is asked again at the next try
	}
	if asOwner && super && agreed {
		filled = change.Subject()
	}
	if right == "" {
		right = "a right"
	}
	if groups, err := k.groupsLacking(ctx, who); err == nil && len(groups) > 0 && !super && what.kind != "superuser" && what.kind != "member" {
		// Rights within the database come with the stream; memberships do not.
		right += ", which it may have as a member of " + strings.Join(groups, ", ") + " on the primary"
		remedy = "GRANT " + sqlname.Join(groups) + " TO " + sqlname.Quote(who) + "; or " + remedy
	}
	if remedy == "" {
		remedy = "give it on the secondary the right that the server names"
	} else {
		inside := strings.HasPrefix(remedy, "GRANT ") && strings.Contains(remedy, " ON ") && !strings.Contains(remedy, " ON DATABASE ")
		remedy = "on the secondary: " + remedy
		if inside { // the gate refuses commands on objects
			remedy = "in a superuser's session that passes the gate (" + drift.ThroughGate + ") " + remedy
		}
	}
	if super && !agreed {
		remedy = fmt.Sprintf("%s is a superuser on the primary and not on the secondary: twinspan link set %s --accept %s at the secondary's agent has such commands run with the agent's rights; or %s", sqlname.Quote(who), k.side.Name(), SuperuserCommands, remedy)
	}
	waits = problem.Wrap(cause, problem.Transient, "right_missing", "%s of %s waits: on the secondary role %s lacks %s", change.Tag, change.Subject(), sqlname.Quote(who), right).
		On(change.Subject()).WithHint("%s; the link goes on by itself. To leave the command out: twinspan link resume %s --skip-change", remedy, k.side.Name())
	return waits, filled, nil
}

// groupsLacking lists the roles that a role is a member of on the primary, as last heard,
// and not here.
func (k *Keeper) groupsLacking(ctx context.Context, who string) (list []string, err error) {
	k.mu.Lock()
	there := k.there[who].MemberOf
	k.mu.Unlock()
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		here, err := pg.RolesNamed(ctx, conn, []string{who})
		if err != nil || len(here) == 0 {
			return err
		}
		for _, m := range there {
			if !here[0].In(m.Role) {
				list = append(list, m.Role)
			}
		}
		return nil
	})
	return list, err
}

// remedyOf finds the statement that gives what is missing.
func remedyOf(ctx context.Context, conn *pgx.Conn, what lack, who, tag string) (right, remedy string, err error) {
	to := sqlname.Quote(who)
	switch what.kind {
	case "":
		return "", "", nil
	case "superuser":
		return "the rights of a superuser", "ALTER ROLE " + to + " SUPERUSER", nil
	case "member":
		return "membership in " + sqlname.Quote(what.object), "GRANT " + sqlname.Quote(what.object) + " TO " + to, nil
	case "owner":
		rows, err := conn.Query(ctx, ownersSQL, what.of, what.object)
		if err != nil {
			return "", "", pg.Classify(err, "look for an owner")
		}
		owners, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return "", "", pg.Classify(err, "look for an owner")
		}
		right = "membership in the owner of " + what.object
		if len(owners) == 1 {
			return right + ", " + owners[0], "GRANT " + owners[0] + " TO " + to, nil
		}
		return right, "GRANT the role that owns " + what.object + " TO " + to, nil
	}
	rights, word, function := rightsOf(what.kind, tag)
	if rights == nil {
		return "", "", nil
	}
	name, signature := sqlname.Quote(what.object), ""
	if word == "TABLE" || word == "SEQUENCE" {
		rows, err := conn.Query(ctx, `SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.relname = $1 AND c.relpersistence <> 't' AND c.relnamespace <> 'pg_catalog'::regnamespace`, what.object)
		if err != nil {
			return "", "", pg.Classify(err, "look for a table")
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return "", "", pg.Classify(err, "look for a table")
		}
		if len(list) != 1 {
			return rights[0] + " on " + what.object, "GRANT " + rights[0] + " ON " + word + " " + what.object + " TO " + to, nil
		}
		name, signature = list[0], list[0]
	} else {
		signature = what.object
	}
	if function != "" {
		for _, r := range rights {
			var has bool
			err := conn.QueryRow(ctx, `SELECT pg_catalog.`+function+`($1::text::name, $2::text, $3::text)`, who, signature, r).Scan(&has)
			if err != nil || !has {
				rights = []string{r}
				break
			}
		}
	}
	return rights[0] + " on " + strings.ToLower(word) + " " + what.object, "GRANT " + rights[0] + " ON " + word + " " + name + " TO " + to, nil
}

// ownersSQL lists the owners of what has a name, quoted.
const ownersSQL = `SELECT DISTINCT o.owner::regrole::text FROM (
	SELECT 'table' AS kind, relowner AS owner, relname::text AS name FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') AND relpersistence <> 't'
	UNION ALL SELECT 'function', proowner, proname FROM pg_catalog.pg_proc
	UNION ALL SELECT 'type', typowner, typname FROM pg_catalog.pg_type
	UNION ALL SELECT 'schema', nspowner, nspname FROM pg_catalog.pg_namespace
	UNION ALL SELECT 'foreign server', srvowner, srvname FROM pg_catalog.pg_foreign_server
	UNION ALL SELECT 'extension', extowner, extname FROM pg_catalog.pg_extension
	UNION ALL SELECT 'collation', collowner, collname FROM pg_catalog.pg_collation
	UNION ALL SELECT 'statistics object', stxowner, stxname FROM pg_catalog.pg_statistic_ext) o
 WHERE o.name = $2 AND o.kind = CASE WHEN $1 IN ('', 'view', 'materialized view', 'foreign table', 'sequence', 'index', 'relation') THEN 'table'
	WHEN $1 IN ('procedure', 'aggregate', 'routine') THEN 'function' WHEN $1 = 'domain' THEN 'type' ELSE $1 END`

// fills says whether a command fills a materialized view with its owner's rights.
func fills(tag string) bool { return strings.HasSuffix(tag, " MATERIALIZED VIEW") }
