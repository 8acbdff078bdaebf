package catalog

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// schemaState is what a schema of the name twinspan is.
type schemaState int

const (
	absent  schemaState = iota
	made                // by an agent
	foreign             // somebody else's, or none that agents read
)

// shapes are the tables that an agent reads before it knows whose they are, with
// what it reads of them. Their types are those of pg_catalog.
var shapes = map[string]map[string]string{
	"version": {"version": "int4"},
	"proof":   {"link": "uuid", "proof": "text"},
	"home":    {"id": "int4", "server": "text", "database": "int8", "relation": "int8"},
	"peer":    {"link": "uuid", "endpoint": "text", "fingerprints": "_text"},
	"lease":   {"agent": "uuid", "term": "int8", "holder": "uuid", "keeper": "int4", "began": "timestamptz", "place": "text"},
	"link": {
		"id": "uuid", "name": "text", "agent": "uuid", "peer": "text", "peer_agent": "uuid", "peer_database": "text", "role": "text", "phase": "text",
		"epoch": "int8", "operation": "text", "diverged": "bool", "parted_lsn": "pg_lsn", "mode": "text", "sync_timeout": "int4", "on_conflict": "text",
		"on_isolation": "text", "max_rate": "int8", "setting_change": "int8", "renewing": "bool", "timeline": "int8", "suspended": "bool", "change": "int8",
		"deleting": "bool", "created_database": "bool", "primary_address": "text", "system_id": "text", "seeded": "bool", "start_lsn": "pg_lsn",
		"problem": "jsonb", "notices": "jsonb", "last_failover": "jsonb", "created_at": "timestamptz",
	},
}

// trustedRoles are those whose schema and tables are believed: the role of this session,
// and superusers, who need no schema to do as they please.
const trustedRoles = `(SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolsuper OR r.rolname = current_user)`

// lookAtSchema reads, from the system's catalogs alone, whose a schema twinspan is.
func lookAtSchema(ctx context.Context, q Querier) (state schemaState, owner string, readable bool, err error) {
	var trusted, version bool
	err = q.QueryRow(ctx, `SELECT n.nspowner IN `+trustedRoles+`, pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.has_schema_privilege(n.oid, 'usage'),
		EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'version')
		FROM pg_catalog.pg_namespace n WHERE n.nspname = 'twinspan'`).Scan(&trusted, &owner, &readable, &version)
	switch {
	case err == pgx.ErrNoRows:
		return absent, "", true, nil
	case err != nil:
		return absent, "", false, pg.Classify(err, "look for the schema twinspan")
	case !trusted || !version:
		return foreign, owner, readable, nil
	}
	return made, owner, readable, nil
}

// Ours says whether the database has a schema twinspan, and whether an agent made it:
// from the system's catalogs alone.
func Ours(ctx context.Context, q Querier) (have, ours bool, err error) {
	state, _, _, err := lookAtSchema(ctx, q)
	return state != absent, state == made, err
}

// Trusted sees that tables of the schema twinspan, whose name alone says nothing, are an
// agent's, and keeps them what they are until the transaction ends. A schema or a table that
// somebody else made is a problem with code schema_taken.
func Trusted(ctx context.Context, tx pgx.Tx, names ...string) error {
	state, owner, _, err := lookAtSchema(ctx, tx)
	switch {
	case err != nil:
		return err
	case state == foreign:
		return notOurs("twinspan", fmt.Sprintf("belongs to the role %q, or is none that an agent made", owner))
	}
	return lockTables(ctx, tx, names...)
}

// lockTables takes the weakest lock of tables of the schema, so that none of them is
// altered, dropped or swapped for another until the transaction ends, and then sees
// that each is what an agent makes: a table of a trusted owner with these columns,
// without anything that would run somebody's code when it is read. The lock comes
// first: whatever was looked at before it may be another thing by now. A lock runs
// no code, whatever the name stands for.
func lockTables(ctx context.Context, tx pgx.Tx, names ...string) error {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = "ONLY twinspan." + name
	}
	if _, err := tx.Exec(ctx, `LOCK TABLE `+strings.Join(list, ", ")+` IN ACCESS SHARE MODE`); err != nil {
		switch pg.SQLState(err) {
		case "42809": // no table at all
			return notOurs("twinspan", "is not made of tables")
		}
		return pg.Classify(err, "lock the tables of the schema twinspan")
	}
	for _, name := range names {
		if err := inspect(ctx, tx, name); err != nil {
			return err
		}
	}
	return nil
}

// plainSQL says whether a relation of the schema twinspan can be read without running anybody's
// code: a table of a trusted owner, and nothing but a table. It is what inspect looks for, in one word.
func plainSQL(name string) string {
	return `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'twinspan' AND c.relname = ` + sqlname.Literal(name) + ` AND c.relkind = 'r' AND c.relowner IN ` + trustedRoles + ` AND n.nspowner IN ` + trustedRoles + `
		AND NOT c.relrowsecurity AND NOT c.relforcerowsecurity AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid WHERE a.attrelid = c.oid AND a.attnum > 0
			AND (y.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace OR coalesce(pg_catalog.to_jsonb(a)->>'attgenerated', '') <> '')))`
}

func inspect(ctx context.Context, tx pgx.Tx, name string) error {
	var kind, owner string
	var trusted, protected, rewritten, family, computed bool
	var columns []string
	err := tx.QueryRow(ctx, `SELECT c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner), c.relowner IN `+trustedRoles+` AND n.nspowner IN `+trustedRoles+`,
		c.relrowsecurity OR c.relforcerowsecurity,
		EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid),
		EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid),
		EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND coalesce(pg_catalog.to_jsonb(a)->>'attgenerated', '') <> ''),
		coalesce((SELECT pg_catalog.array_agg(a.attname::text || ' ' || y.typname::text ORDER BY a.attname::text COLLATE "C")
			FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
			WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND y.typnamespace = 'pg_catalog'::pg_catalog.regnamespace), '{}')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'twinspan' AND c.relname = $1`, name).Scan(&kind, &owner, &trusted, &protected, &rewritten, &family, &computed, &columns)
	subject := "twinspan." + name
	switch {
	case err == pgx.ErrNoRows:
		return notOurs(subject, "is not there")
	case err != nil:
		return pg.Classify(err, "look at the tables of the schema twinspan")
	case !trusted:
		return notOurs(subject, fmt.Sprintf("belongs to the role %q", owner))
	case kind != "r" || rewritten:
		return notOurs(subject, "is not an ordinary table")
	case protected:
		return notOurs(subject, "has row-level security")
	case family:
		return notOurs(subject, "inherits, or is inherited from")
	case computed:
		return notOurs(subject, "has generated columns")
	}
	have := map[string]bool{}
	for _, c := range columns {
		have[c] = true
	}
	var missing []string
	for column, of := range shapes[name] {
		if !have[column+" "+of] {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		sort.Strings(missing)
		return notOurs(subject, "lacks columns of the types that an agent makes: "+strings.Join(missing, ", "))
	}
	return nil
}

// notOurs is the problem of a schema twinspan that no agent made.
func notOurs(subject, why string) error {
	return problem.New(problem.Conflict, "schema_taken", "the database has a schema twinspan that Twinspan did not make: %s %s", subject, why).On(subject).
		WithHint("have its owner rename or drop it: ALTER SCHEMA twinspan RENAME TO ...")
}
