package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// CreatedRole is a role that CreateRoles made.
type CreatedRole struct {
	Name     string
	Login    bool
	Password bool     // its verifier was brought
	Left     []string // what of it was not carried, and why, in words
}

// silence keeps statements with verifiers out of the server's log, out of
// pg_stat_activity and out of pg_stat_statements. It needs a superuser.
var silence = map[string]string{
	"log_statement": "none", "log_min_duration_statement": "-1", "log_min_duration_sample": "-1", "log_transaction_sample_rate": "0",
	"log_min_error_statement": "panic", "track_activities": "off", "debug_print_parse": "off",
	"pg_stat_statements.track": "none", "pg_stat_statements.track_utility": "off", "pgaudit.log": "none", "auto_explain.log_min_duration": "-1",
}

// serverRoles are the predefined roles whose members act on the server's machine
// with the rights of the server (manual, "Predefined Roles"): as good as superusers.
var serverRoles = []string{"pg_read_server_files", "pg_write_server_files", "pg_execute_server_program"}

// CreateRoles makes those of the roles that the instance lacks, as the primary's
// instance has them, in one transaction. Roles that exist are not touched, except
// that those are made members of new roles which are so on the primary.
//
// What would give power over the instance and not over the database alone is left
// out and named in the answer: SUPERUSER, REPLICATION and membership in the roles
// that reach the server's files and programs. The instance's owner decides on these.
func CreateRoles(ctx context.Context, server *pg.DSN, name string, roles []pg.Role) ([]CreatedRole, error) {
	conn, err := server.Connect(ctx, pg.Session{Name: name + "/roles"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := beSilent(ctx, conn); err != nil {
		return nil, err
	}
	var made []CreatedRole
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		made, err = createAll(ctx, tx, roles)
		return err
	})
	if err != nil {
		return nil, pg.Classify(err, "create roles")
	}
	return made, nil
}

// beSilent keeps what a session does out of logs and statistics.
func beSilent(ctx context.Context, conn *pgx.Conn) error {
	for setting, value := range silence {
		// Settings that this version does not have are not missed.
		if _, err := conn.Exec(ctx, `SELECT set_config($1, $2, false) WHERE strpos($1, '.') > 0 OR current_setting($1, true) IS NOT NULL`, setting, value); err != nil {
			return pg.Classify(err, "keep passwords out of the server's log")
		}
	}
	return nil
}

func createAll(ctx context.Context, tx pgx.Tx, roles []pg.Role) ([]CreatedRole, error) {
	rows, err := tx.Query(ctx, `SELECT rolname::text FROM pg_catalog.pg_roles`)
	if err != nil {
		return nil, pg.Classify(err, "list roles")
	}
	present, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, pg.Classify(err, "list roles")
	}
	var made []CreatedRole
	at := map[string]int{}
	for _, r := range roles {
		if slices.Contains(present, r.Name) {
			continue
		}
		if _, err := tx.Exec(ctx, roleSQL(r)); err != nil {
			return nil, refusedRole(err, r.Name)
		}
		c := CreatedRole{Name: r.Name, Login: r.Login, Password: r.Verifier != ""}
		if r.Superuser {
			c.Left = append(c.Left, "SUPERUSER")
		}
		if r.Replication {
			c.Left = append(c.Left, "REPLICATION")
		}
		for _, line := range r.Settings {
			setting, value := pg.CutSetting(line)
			if err := try(ctx, tx, `ALTER ROLE `+sqlname.Quote(r.Name)+` SET `+pg.Assignment(setting, value)); err != nil {
				c.Left = append(c.Left, "the setting "+setting)
			}
		}
		if r.Comment != "" {
			if _, err := tx.Exec(ctx, `COMMENT ON ROLE `+sqlname.Quote(r.Name)+` IS `+sqlname.Literal(r.Comment)); err != nil {
				return nil, refusedRole(err, r.Name)
			}
		}
		at[r.Name] = len(made)
		made = append(made, c)
	}
	return made, grantAll(ctx, tx, roles, made, at, present)
}

// grantAll makes the memberships of which one side is new.
func grantAll(ctx context.Context, tx pgx.Tx, roles []pg.Role, made []CreatedRole, at map[string]int, present []string) error {
	for _, r := range roles {
		own, isNew := at[r.Name]
		for _, m := range r.MemberOf {
			_, groupIsNew := at[m.Role]
			switch {
			case !isNew && !groupIsNew:
			case isNew && slices.Contains(serverRoles, m.Role):
				made[own].Left = append(made[own].Left, "membership in "+m.Role)
			case !groupIsNew && !slices.Contains(present, m.Role):
				// A role of every server that an older version does not have, or a superuser.
				made[own].Left = append(made[own].Left, "membership in "+m.Role)
			default:
				if _, err := tx.Exec(ctx, grantSQL(r.Name, m, tx.Conn().PgConn().ParameterStatus("server_version"))); err != nil {
					return refusedRole(err, r.Name)
				}
			}
		}
	}
	return nil
}

// refusedRole leaves the statement and its verifier out.
func refusedRole(err error, name string) error {
	if p := problem.As(pg.Classify(err, "create the role")); p.Kind != problem.Internal {
		return p.On(name)
	}
	return problem.Wrap(pg.Classify(err, "create the role"), problem.Incompatible, "role_not_created", "the secondary's server refuses the role %s", sqlname.Quote(name)).
		On(name).WithHint("create it there by hand, or create the link without --create-roles")
}

// try runs a statement that may fail, with nothing left of it then.
func try(ctx context.Context, tx pgx.Tx, sql string) error {
	return pg.InTx(ctx, tx, func(inner pgx.Tx) error {
		_, err := inner.Exec(ctx, sql)
		return err
	})
}

func roleSQL(r pg.Role) string {
	var b strings.Builder
	b.WriteString("CREATE ROLE " + sqlname.Quote(r.Name))
	for _, w := range []struct {
		has  bool
		word string
	}{{r.Login, "LOGIN"}, {r.Inherit, "INHERIT"}, {r.BypassRLS, "BYPASSRLS"}, {r.CreateDB, "CREATEDB"}, {r.CreateRole, "CREATEROLE"}} {
		if w.has {
			b.WriteString(" " + w.word)
		} else {
			b.WriteString(" NO" + w.word)
		}
	}
	if r.Limit >= 0 {
		fmt.Fprintf(&b, " CONNECTION LIMIT %d", r.Limit)
	}
	if r.ValidUntil != "" {
		b.WriteString(" VALID UNTIL " + sqlname.Literal(r.ValidUntil))
	}
	if r.Verifier != "" {
		b.WriteString(" PASSWORD " + sqlname.Literal(string(r.Verifier)))
	}
	return b.String()
}

// grantSQL carries the options that both servers know; before version 16 the
// member's own INHERIT decides.
func grantSQL(member string, m pg.Membership, version string) string {
	sql := "GRANT " + sqlname.Quote(m.Role) + " TO " + sqlname.Quote(member)
	var options []string
	if m.Admin {
		options = append(options, "ADMIN OPTION")
	}
	var major int
	fmt.Sscanf(version, "%d", &major)
	if major >= 16 {
		options = nil
		if m.Admin {
			options = append(options, "ADMIN TRUE")
		}
		for _, o := range []struct {
			value *bool
			word  string
		}{{m.Inherit, "INHERIT"}, {m.Set, "SET"}} {
			if o.value != nil {
				options = append(options, fmt.Sprintf("%s %t", o.word, *o.value))
			}
		}
	}
	if len(options) > 0 {
		sql += " WITH " + strings.Join(options, ", ")
	}
	return sql
}
