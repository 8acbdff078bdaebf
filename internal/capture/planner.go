package capture

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Marks in the SQL.
const (
	// plannerMark is where a function that the application's command calls first takes
	// settings for the planner: the functions that it calls have them, too.
	plannerMark = "/*planner*/"
	// plannerNames is where these settings are listed, plannerCaller where those of the caller
	// that are others are.
	plannerNames  = "/*planner names*/"
	plannerCaller = "/*planner of the caller*/"
)

// planned gives the functions in a text settings for the planner. They run in sessions of
// the application, in which a query on the catalogs may take minutes where enable_indexscan
// is off, or each query is compiled.
func planned(ctx context.Context, conn *pgx.Conn, text string) (string, error) {
	settings := pg.PlannerSettings()
	// Not every version has them.
	rows, err := conn.Query(ctx, `SELECT n, v FROM (VALUES ('jit', 'off'), ('plan_cache_mode', 'auto')) AS s (n, v)
		WHERE pg_catalog.current_setting(n, true) IS NOT NULL`)
	if err != nil {
		return "", pg.Classify(err, "look at the planner's settings")
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		settings[name] = value
		return nil
	})
	if err != nil {
		return "", pg.Classify(err, "look at the planner's settings")
	}
	var list strings.Builder
	var names, callers []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		literal, value := sqlname.Literal(name), sqlname.Literal(settings[name])
		list.WriteString(" SET " + name + " = " + value)
		names = append(names, literal)
		current := "pg_catalog.current_setting(" + literal + ")"
		callers = append(callers, literal+", CASE WHEN "+current+" OPERATOR(pg_catalog.<>) "+value+" THEN "+current+" END")
	}
	return strings.NewReplacer(plannerMark, list.String(), plannerNames, strings.Join(names, ", "), plannerCaller, strings.Join(callers, ", ")).Replace(text), nil
}
