package dbcopy

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// CreateDatabase makes an empty database that sorts and encodes as the source does. A
// locale that the server lacks is locale_missing.
func CreateDatabase(ctx context.Context, server *pgx.Conn, name string, s assess.Source) error {
	_, err := server.Exec(ctx, createDatabase(name, s, server))
	return localeHint(pg.Classify(err, "create the database"), s)
}

// createDatabase makes the statement. Words of newer versions are used only where the
// server knows them.
func createDatabase(name string, s assess.Source, conn *pgx.Conn) string {
	sql := fmt.Sprintf(`CREATE DATABASE %s TEMPLATE template0 ENCODING %s LC_COLLATE %s LC_CTYPE %s`,
		sqlname.Quote(name), sqlname.Literal(s.Encoding), sqlname.Literal(s.Collate), sqlname.Literal(s.CType))
	major := conn.PgConn().ParameterStatus("server_version")
	old := strings.HasPrefix(major, "14")
	switch {
	case old:
	case s.Provider == "i":
		sql += ` LOCALE_PROVIDER icu ICU_LOCALE ` + sqlname.Literal(s.Locale)
	case s.Provider == "b" && !strings.HasPrefix(major, "15") && !strings.HasPrefix(major, "16"):
		sql += ` LOCALE_PROVIDER builtin BUILTIN_LOCALE ` + sqlname.Literal(s.Locale)
	default:
		sql += ` LOCALE_PROVIDER libc`
	}
	return sql
}

func localeHint(err error, s assess.Source) error {
	if p := problem.As(err); p != nil && (strings.Contains(p.Error(), "locale") || strings.Contains(p.Error(), "encoding")) {
		return problem.Wrap(err, problem.Incompatible, "locale_missing", "the server cannot make a database with encoding %s and locale %s", s.Encoding, s.Collate).
			WithHint("install the locale on the machine of the server that is to hold the database; for a link, an empty database with a locale of your choice can be created there first")
	}
	return err
}
