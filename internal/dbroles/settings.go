package dbroles

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// SettingsDiffer is the problem, and the consent by which the secondary's operator lets it be.
const SettingsDiffer = "database_settings_differ"

// computing are settings under which users' code reads, writes or computes values otherwise; so
// may every setting with a name of users' own.
var computing = []string{
	"search_path", "datestyle", "intervalstyle", "timezone", "timezone_abbreviations", "extra_float_digits", "bytea_output", "lc_messages", "lc_monetary", "lc_numeric", "lc_time",
	"default_text_search_config", "xmlbinary", "xmloption", "array_nulls", "backslash_quote", "standard_conforming_strings", "transform_null_equals", "row_security", "quote_all_identifiers",
}

// computes says whether values can depend on a setting.
func computes(name string) bool {
	low := strings.ToLower(name)
	return slices.Contains(computing, low) || strings.Contains(low, ".") && !strings.HasPrefix(low, "twinspan.")
}

// mostSettings bounds what is told of settings, in bytes.
const mostSettings = 1 << 20

// computingSettings lists what the database of a session gives to its sessions of what values can depend
// on; nil where that is more than anybody means.
func computingSettings(ctx context.Context, conn *pgx.Conn) ([]pg.Setting, error) {
	all, err := pg.DatabaseSettings(ctx, conn)
	list, size := []pg.Setting{}, 0
	for _, s := range all {
		if computes(s.Name) {
			list = append(list, s)
			size += len(s.Role) + len(s.Name) + len(s.Value)
		}
	}
	if size > mostSettings {
		list = nil
	}
	return list, err
}

// differentSetting is a setting that one of the databases gives to its sessions.
type differentSetting struct {
	there, here *pg.Setting // nil where it is not set
}

// differentSettings lists what sessions of the two databases are given differently, of what
// values can depend on and the server here knows, in the order of roles and names.
func differentSettings(there, here []pg.Setting, known func(name string) bool) []differentSetting {
	found := map[string]*differentSetting{}
	at := func(s pg.Setting) *differentSetting {
		key := s.Role + "\x00" + strings.ToLower(s.Name)
		if found[key] == nil {
			found[key] = &differentSetting{}
		}
		return found[key]
	}
	for _, s := range there {
		at(s).there = &s
	}
	for _, s := range here {
		at(s).here = &s
	}
	keys := make([]string, 0, len(found))
	for key := range found {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var list []differentSetting
	for _, key := range keys {
		d := *found[key]
		_, name, _ := strings.Cut(key, "\x00")
		if (strings.Contains(name, ".") || known(name)) && (d.there == nil || d.here == nil || d.there.Value != d.here.Value) {
			list = append(list, d)
		}
	}
	return list
}

// longestShown is the length of values that are shown.
const longestShown = 500

// remedy is the statement that makes the secondary's database, which it names, like the primary's. A
// value with a name of users' own may be a secret: it is not shown.
func (d differentSetting) remedy(database string) string {
	s := d.there
	if s == nil {
		s = d.here
	}
	statement := "ALTER DATABASE " + sqlname.Quote(database)
	if s.Role != "" {
		statement = "ALTER ROLE " + sqlname.Quote(s.Role) + " IN DATABASE " + sqlname.Quote(database)
	}
	switch {
	case d.there == nil:
		return statement + " RESET " + settingName(s.Name)
	case strings.Contains(s.Name, ".") || len(s.Value) > longestShown:
		return statement + " SET " + settingName(s.Name) + " TO ... (as on the primary)"
	}
	return statement + " SET " + pg.Assignment(s.Name, s.Value)
}

// settingName quotes a setting's name as ALTER ... RESET takes it.
func settingName(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = sqlname.Quote(parts[i])
	}
	return strings.Join(parts, ".")
}

// settingsProblem is what is to be said of them, nil of none.
func settingsProblem(list []differentSetting, link, database string) *problem.Error {
	if len(list) == 0 {
		return nil
	}
	first := list[0].there
	if first == nil {
		first = list[0].here
	}
	what := first.Name
	if first.Role != "" {
		what += " for role " + sqlname.Quote(first.Role)
	}
	text := fmt.Sprintf("the databases give their sessions %s differently: code of users may compute other values on the secondary", what)
	if len(list) > 1 {
		text += fmt.Sprintf("; so do they with %d other settings", len(list)-1)
	}
	const shown = 5
	var statements []string
	for _, d := range list[:min(len(list), shown)] {
		statements = append(statements, d.remedy(database))
	}
	return problem.New(problem.Incompatible, SettingsDiffer, "%s", text).On(first.Name).
		WithHint("on the secondary's server, in another database than the link's, as its settings are carried by the first copy alone: %s; where it shall be so: twinspan link set %s --accept %s",
			strings.Join(statements, "; "), link, SettingsDiffer)
}

// noteSettings notes as a problem that the databases of both sides give their sessions other
// settings. Primaries of older releases do not tell theirs.
func (k *Keeper) noteSettings(ctx context.Context, there []pg.Setting) error {
	if there == nil {
		return nil
	}
	agreed, err := k.side.Agreed(ctx, SettingsDiffer)
	if err != nil {
		return err
	}
	var list []differentSetting
	if !agreed {
		err := k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			here, err := computingSettings(ctx, conn)
			if err != nil || here == nil {
				return err
			}
			rows, err := conn.Query(ctx, `SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings WHERE context = 'user'`)
			if err != nil {
				return pg.Classify(err, "list the settings that the server knows")
			}
			names, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return pg.Classify(err, "list the settings that the server knows")
			}
			list = differentSettings(there, here, func(name string) bool { return slices.Contains(names, name) })
			return nil
		})
		if err != nil {
			return err
		}
	}
	k.side.Warn(SettingsDiffer, settingsProblem(list, k.side.Name(), k.side.Database))
	return nil
}

// Ordinary are the values that an ordinary session of the twin's database has
// of what the agent's sessions fix for themselves.
func (k *Keeper) Ordinary(ctx context.Context) ([]ddl.Setting, error) {
	k.mu.Lock()
	known := k.ordinary
	k.mu.Unlock()
	if known != nil {
		return known, nil
	}
	settings, err := rights.Ordinary(ctx, k.side.DSN, k.side.Name())
	if err != nil {
		return nil, err
	}
	list := make([]ddl.Setting, len(settings))
	for i, s := range settings {
		list[i] = ddl.Setting(s)
	}
	k.mu.Lock()
	k.ordinary = list
	k.mu.Unlock()
	return list, nil
}

// ForgetOrdinary has the settings of an ordinary session read again.
func (k *Keeper) ForgetOrdinary() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ordinary = nil
}
