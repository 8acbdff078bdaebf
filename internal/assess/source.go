package assess

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Source is what the secondary's side has to know of the primary database to
// judge whether it can take it, and to make its own.
type Source struct {
	Database   string      `json:"database"`
	Owner      string      `json:"owner"`
	Major      int         `json:"major"`
	SystemID   string      `json:"systemId"`
	Encoding   string      `json:"encoding"`
	Collate    string      `json:"collate"`
	CType      string      `json:"ctype"`
	Provider   string      `json:"provider"` // c libc, i icu, b builtin
	Locale     string      `json:"locale,omitempty"`
	Bytes      int64       `json:"bytes"`
	Extensions []Extension `json:"extensions,omitempty"`
	// Encryption is how its data is encrypted at rest (package instance); "" where its agent cannot look at it. It is read for a check alone.
	Encryption string `json:"encryption,omitempty"`
}

// Extension is one that the primary database uses.
type Extension struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Needs is what else the primary database asks of the secondary's instance. It is
// read for a check alone.
type Needs struct {
	Roles      []pg.Role    `json:"roles,omitempty"` // without verifiers
	Settings   []pg.Setting `json:"settings,omitempty"`
	Collations []Collation  `json:"collations,omitempty"`
	Labels     []string     `json:"labels,omitempty"` // providers of its security labels
	// Newer are columns that may have values which servers before this version do not know.
	Newer []string `json:"newer,omitempty"`
}

// Collation is one that columns of the primary database use.
type Collation struct {
	Name     string `json:"name"`             // as SQL, with its schema; "" for the database's own
	BuiltIn  bool   `json:"builtIn"`          // of pg_catalog: must be there, is not created
	Provider string `json:"provider"`         // c libc, i icu, b builtin
	Collate  string `json:"collate"`          // LC_COLLATE, or the ICU locale
	CType    string `json:"ctype"`            // LC_CTYPE, or the ICU locale
	Nondet   bool   `json:"nondet,omitempty"` // not deterministic
	Version  string `json:"version,omitempty"`
}

// Describe reads what a database is.
func Describe(ctx context.Context, conn *pgx.Conn) (Source, error) {
	var s Source
	var version int
	err := conn.QueryRow(ctx, `SELECT d.datname, pg_get_userbyid(d.datdba), current_setting('server_version_num')::int,
		(SELECT system_identifier::text FROM pg_control_system()), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
		coalesce(to_jsonb(d)->>'datlocprovider', 'c'), coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''), pg_database_size(d.oid)
		FROM pg_database d WHERE d.datname = current_database()`).
		Scan(&s.Database, &s.Owner, &version, &s.SystemID, &s.Encoding, &s.Collate, &s.CType, &s.Provider, &s.Locale, &s.Bytes)
	if err != nil {
		return s, pg.Classify(err, "describe the database")
	}
	s.Major = version / 10000
	rows, err := conn.Query(ctx, `SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1`)
	if err != nil {
		return s, pg.Classify(err, "list extensions")
	}
	s.Extensions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Extension])
	return s, pg.Classify(err, "list extensions")
}

// collationsSQL lists the collations that columns use, and the database's own with
// the version that the libraries of its server give it. Arguments: expressions of
// the version of the database's collation, of determinism and of the ICU locale.
const collationsSQL = `
SELECT DISTINCT format('%%I.%%I', n.nspname, l.collname), n.nspname = 'pg_catalog', l.collprovider::text,
       coalesce(l.collcollate::text, ` + icuLocale + `, ''), coalesce(l.collctype::text, ` + icuLocale + `, ''),
       coalesce(to_jsonb(l)->>'collisdeterministic', 'true') = 'false', coalesce(pg_catalog.pg_collation_actual_version(l.oid), '')
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm') AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
  JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
 WHERE l.collprovider IN ('c', 'i', 'b')
UNION ALL
SELECT '', true, coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
       coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', d.datcollate::text), coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', d.datctype::text),
       false, coalesce(%s, '')
  FROM pg_catalog.pg_database d WHERE d.datname = current_database()
 ORDER BY 1`

const icuLocale = `to_jsonb(l)->>'colllocale', to_jsonb(l)->>'colliculocale'`

// readNeeds reads what a check compares with the other side.
func readNeeds(ctx context.Context, conn *pgx.Conn, major int) (Needs, error) {
	var n Needs
	var err error
	if n.Roles, err = pg.NeededRoles(ctx, conn); err != nil {
		return n, err
	}
	// A plain role may not read who has a password; it is found to be one elsewhere.
	if err := pg.ReadPasswords(ctx, conn, n.Roles, false); err != nil && pg.SQLState(err) != "42501" {
		return n, err
	}
	if n.Settings, err = pg.DatabaseSettings(ctx, conn); err != nil {
		return n, err
	}
	version := "''"
	if major >= 15 {
		version = "pg_catalog.pg_database_collation_actual_version(d.oid)"
	}
	rows, err := conn.Query(ctx, fmt.Sprintf(collationsSQL, version))
	if err != nil {
		return n, pg.Classify(err, "list the collations of columns")
	}
	if n.Collations, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Collation]); err != nil {
		return n, pg.Classify(err, "list the collations of columns")
	}
	if types := pg.WithNewValues(0, major); len(types) > 0 {
		if n.Newer, err = pg.ColumnsHolding(ctx, conn, types); err != nil {
			return n, err
		}
	}
	// What extensions hold labels of comes with them; large objects come without.
	err = conn.QueryRow(ctx, `SELECT coalesce(array_agg(DISTINCT s.provider), '{}') FROM pg_catalog.pg_seclabel s WHERE s.classoid NOT IN ('pg_largeobject'::regclass, 'pg_publication'::regclass, 'pg_subscription'::regclass)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = s.classoid AND d.objid = s.objoid AND d.deptype = 'e')`).Scan(&n.Labels)
	return n, pg.Classify(err, "list the providers of security labels")
}
