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

// properties is what belongs to the database as a whole: its comment, its
// privileges, its limit of connections and the settings that it gives to sessions.
// pg_dump leaves them out unless it makes the database itself. They are built last,
// by SetProperties, for a half-made copy has none of them.
const properties Section = "properties"

const kindProperty = "DATABASE PROPERTY"

// Unset are settings of a database that never go to its twin: the link's own one,
// and those that would change as whom, or past which triggers, sessions act there.
func Unset() []string {
	return []string{"default_transaction_read_only", "role", "session_authorization", "session_replication_role"}
}

// readProperties makes an entry of each property. The twin may have another name,
// so each is a block that asks for it.
func (c *catalog) readProperties(ctx context.Context, conn *pgx.Conn) error {
	var comment string
	var limit int
	err := conn.QueryRow(ctx, `SELECT coalesce(pg_catalog.shobj_description(oid, 'pg_database'), ''), datconnlimit
		FROM pg_catalog.pg_database WHERE datname = current_database()`).Scan(&comment, &limit)
	if err != nil {
		return err
	}
	if comment != "" {
		c.property("comment", "COMMENT ON DATABASE %I IS "+escaped(sqlname.Literal(comment)))
	}
	if was := c.former.limit; was != nil {
		limit = *was
	}
	if limit >= 0 {
		c.property("connection limit", fmt.Sprintf("ALTER DATABASE %%I CONNECTION LIMIT %d", limit))
	}
	if err := c.readPrivileges(ctx, conn); err != nil {
		return err
	}
	settings, err := pg.DatabaseSettings(ctx, conn)
	if err != nil {
		return err
	}
	for _, s := range settings {
		if slices.Contains(Unset(), s.Name) {
			continue
		}
		target := "ALTER DATABASE %I SET "
		if s.Role != "" {
			c.needRole(s.Role)
			target = "ALTER ROLE " + escaped(sqlname.Quote(s.Role)) + " IN DATABASE %I SET "
		}
		c.property("setting "+s.Name, target+escaped(pg.Assignment(s.Name, s.Value)))
	}
	return nil
}

// readPrivileges lists the grants on the database, where they are not those that
// a new one has.
func (c *catalog) readPrivileges(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT coalesce(r.rolname::text, ''), a.privilege_type, a.is_grantable
		FROM pg_catalog.pg_database d CROSS JOIN LATERAL pg_catalog.aclexplode(d.datacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
		WHERE d.datname = current_database() AND (a.grantee = 0 OR r.oid IS NOT NULL) AND a.grantee <> d.datdba ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	var role, privilege string
	var grantable bool
	grants := []string{"REVOKE ALL ON DATABASE %I FROM PUBLIC"}
	_, err = pgx.ForEachRow(rows, []any{&role, &privilege, &grantable}, func() error {
		grant := "GRANT " + privilege + " ON DATABASE %I TO PUBLIC"
		if role != "" {
			c.needRole(role)
			grant = "GRANT " + privilege + " ON DATABASE %I TO " + escaped(sqlname.Quote(role))
		}
		if grantable {
			grant += " WITH GRANT OPTION"
		}
		grants = append(grants, grant)
		return nil
	})
	if err != nil {
		return err
	}
	var changed bool
	if err := conn.QueryRow(ctx, `SELECT datacl IS NOT NULL FROM pg_catalog.pg_database WHERE datname = current_database()`).Scan(&changed); err != nil {
		return err
	}
	if changed {
		c.property("privileges", grants...)
	}
	return nil
}

// needRole notes a role that a property names; those that every server has are
// nobody's to make.
func (c *catalog) needRole(name string) {
	if !strings.HasPrefix(name, "pg_") {
		c.propRoles = append(c.propRoles, name)
	}
}

// escaped makes text safe in a pattern of format().
func escaped(text string) string { return strings.ReplaceAll(text, "%", "%%") }

// property adds an entry that executes the patterns with the database's name.
func (c *catalog) property(name string, patterns ...string) {
	var body strings.Builder
	body.WriteString("BEGIN ")
	for _, p := range patterns {
		body.WriteString("EXECUTE format(" + sqlname.Literal(p) + ", current_database()); ")
	}
	body.WriteString("END")
	c.props = append(c.props, Entry{Section: properties, Kind: kindProperty, Name: name, SQL: Text("DO " + sqlname.Literal(body.String()))})
}

// LeftProperty is a property of the database that the secondary's server refuses.
type LeftProperty struct {
	Name   string // such as "setting work_mem"
	Reason string
}

// SetSettings gives the database those settings of the primary's that it takes, so that
// code of users sees them from the first row on. SetProperties tells of the others.
func (t *Target) SetSettings(ctx context.Context) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	entries, err := t.load(ctx, conn, properties)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.done || !strings.HasPrefix(e.Name, "setting ") {
			continue
		}
		if err := t.build(ctx, conn, []stored{e}); err != nil && (problem.Retry(err) || problem.KindOf(err) == problem.Cancelled) {
			return err
		}
	}
	return nil
}

// SetProperties gives the database the primary's properties. What the server
// refuses, such as a setting that it does not know, is left out and told.
func (t *Target) SetProperties(ctx context.Context) ([]LeftProperty, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	entries, err := t.load(ctx, conn, properties)
	if err != nil {
		return nil, err
	}
	var left []LeftProperty
	for _, e := range entries {
		if e.done {
			continue
		}
		err := t.build(ctx, conn, []stored{e})
		switch {
		case err == nil:
		case problem.Retry(err) || problem.KindOf(err) == problem.Cancelled:
			return left, err
		default:
			left = append(left, LeftProperty{Name: e.Name, Reason: problem.As(err).Error()})
		}
	}
	return left, nil
}
