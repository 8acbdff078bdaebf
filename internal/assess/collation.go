package assess

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// judgeCollations makes each collation that the primary uses, for a moment: the
// server then asks its libraries for the locale, and tells their version of it. A
// different version is no harm to indexes, for all are built anew on the twin.
func (l *secondaryLook) judgeCollations(ctx context.Context) error {
	if l.plain {
		return nil
	}
	if _, err := l.conn.Exec(ctx, `SET lc_messages = 'C'`); err != nil {
		return pg.Classify(err, "set the language of messages")
	}
	for _, c := range l.Needs.Collations {
		if c.Provider == "d" || l.exists && c.Name == "" {
			continue // the database's own, which is there as it is
		}
		if err := l.judgeCollation(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (l *secondaryLook) judgeCollation(ctx context.Context, c Collation) error {
	object := c.Name
	if object == "" {
		object = c.Collate
	}
	missing := func(why, remedy string) {
		code := "collation_missing"
		if c.Name == "" {
			code = "locale_missing"
		}
		l.found.blocksIf(true, code, object, why, remedy)
	}
	const remedy = "install the locale on the secondary's machine (on Debian: locale-gen), restart the server, and there: SELECT pg_import_system_collations('pg_catalog')"
	if c.BuiltIn && c.Name != "" {
		var have bool
		if err := l.conn.QueryRow(ctx, `SELECT to_regcollation($1) IS NOT NULL`, c.Name).Scan(&have); err != nil {
			return pg.Classify(err, "look for the collation "+c.Name)
		}
		if !have {
			missing("columns of the database use this collation, which the secondary's server does not have", remedy)
			return nil
		}
	}
	if c.Name == "" && (c.Provider == "i" && l.version < 150000 || c.Provider == "b" && l.version < 170000) {
		l.found.warnsIf(true, "locale_differs", l.Database, "the primary's database sorts by a provider that the secondary's version has not for databases: the twin is made with "+
			l.Source.Collate+" of its system, and sorts text otherwise", "use a newer version on the secondary, or create the empty database there with a locale of your choice")
		return nil
	}
	version, err := l.tryCollation(ctx, c)
	refused, failed := refusal(err)
	switch {
	case err == nil:
		l.found.informsIf(c.Version != "" && version != "" && c.Version != version, "collation_version_differs", object,
			fmt.Sprintf("the primary's system has version %s of this collation, the secondary's %s: some texts may sort otherwise on the twin. Its indexes are built anew and are right", c.Version, version), "")
	case failed != nil:
		return failed
	case strings.Contains(refused, "does not match locale"):
		// It exists, for another encoding than that of the database in which this was tried.
	default:
		missing("the secondary's server cannot make this collation: "+refused, remedy)
	}
	return nil
}

// tryCollation returns the version that the server's libraries have.
func (l *secondaryLook) tryCollation(ctx context.Context, c Collation) (version string, err error) {
	provider := map[string]string{"i": "icu", "b": "builtin"}[c.Provider]
	if provider == "" {
		provider = "libc"
	}
	options := "provider = " + provider + ", locale = " + sqlname.Literal(c.Collate)
	if provider == "libc" {
		options = "provider = libc, lc_collate = " + sqlname.Literal(c.Collate) + ", lc_ctype = " + sqlname.Literal(c.CType)
	}
	if c.Nondet {
		options += ", deterministic = false"
	}
	tx, err := l.conn.Begin(ctx)
	if err != nil {
		return "", pg.Classify(err, "try a collation")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, `CREATE COLLATION pg_temp.twinspan_check (`+options+`)`); err != nil {
		return "", err
	}
	err = tx.QueryRow(ctx, `SELECT coalesce(pg_collation_actual_version('pg_temp.twinspan_check'::regcollation), '')`).Scan(&version)
	if err == pgx.ErrNoRows {
		err = nil
	}
	return version, err
}
