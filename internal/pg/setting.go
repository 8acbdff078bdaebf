package pg

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Setting is a parameter that a database, or a role in it, gives to its sessions
// (ALTER DATABASE SET, ALTER ROLE IN DATABASE SET).
type Setting struct {
	Role  string `json:"role,omitempty"` // "" for all roles
	Name  string `json:"name"`
	Value string `json:"value"` // as pg_db_role_setting has it
}

// LocalCommit is a setting that Twinspan puts beside each synchronous_commit that it
// gave to a database itself, so that others' settings are told from its own.
const LocalCommit = "twinspan.local_commit"

// LongestSetting bounds, in bytes, the settings that are read: any role may give itself one of a gigabyte, which no
// agent takes into its memory. Longer ones are as if they were not there.
const LongestSetting = 64 << 10

// DatabaseSettings lists the settings of the session's database, without the
// synchronous_commit that Twinspan gave it and those longer than LongestSetting.
func DatabaseSettings(ctx context.Context, q Rows) ([]Setting, error) {
	rows, err := q.Query(ctx, `SELECT coalesce(r.rolname::text, ''), c.line
		FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY AS c (line, n)
		LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
		WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) AND (s.setrole = 0 OR r.oid IS NOT NULL)
		AND pg_catalog.octet_length(c.line) <= $1 ORDER BY 1, c.n`, LongestSetting)
	if err != nil {
		return nil, Classify(err, "list the settings of the database")
	}
	settings, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Setting, error) {
		var s Setting
		var line string
		err := row.Scan(&s.Role, &line)
		s.Name, s.Value = CutSetting(line)
		return s, err
	})
	if slices.ContainsFunc(settings, func(s Setting) bool { return s.Role == "" && s.Name == LocalCommit }) {
		settings = slices.DeleteFunc(settings, func(s Setting) bool {
			return s.Role == "" && (s.Name == LocalCommit || s.Name == "synchronous_commit")
		})
	}
	return settings, Classify(err, "list the settings of the database")
}

// CutSetting takes name and value of a line of setconfig apart.
func CutSetting(line string) (name, value string) {
	name, value, _ = strings.Cut(line, "=")
	return name, value
}

// Assignment returns the words "name TO value" for ALTER ... SET. Parameters that
// are lists of names are kept in the form that they are printed in, each name
// quoted where it must be (guc.c, GUC_LIST_QUOTE; pg_dump's dumputils.c lists the
// same parameters), and have to be taken apart again.
func Assignment(name, value string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = sqlname.Quote(parts[i])
	}
	quoted := strings.Join(parts, ".")
	switch strings.ToLower(name) {
	case "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories":
		var items []string
		for _, item := range splitList(value) {
			items = append(items, sqlname.Literal(item))
		}
		if len(items) == 0 {
			items = []string{"''"}
		}
		return quoted + " TO " + strings.Join(items, ", ")
	}
	return quoted + " TO " + sqlname.Literal(value)
}

// splitList takes a printed list apart (varlena.c, SplitGUCList).
func splitList(text string) []string {
	var items []string
	for rest := strings.TrimSpace(text); rest != ""; {
		var item strings.Builder
		if rest[0] == '"' {
			rest = rest[1:]
			for rest != "" {
				before, after, found := strings.Cut(rest, `"`)
				item.WriteString(before)
				rest = after
				if !found || !strings.HasPrefix(rest, `"`) {
					break
				}
				item.WriteByte('"')
				rest = rest[1:]
			}
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			word, after, _ := strings.Cut(rest, ",")
			item.WriteString(strings.TrimSpace(word))
			rest = after
		}
		items = append(items, item.String())
		rest = strings.TrimSpace(rest)
	}
	return items
}
