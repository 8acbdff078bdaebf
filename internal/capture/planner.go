package capture

import (
	"cmp"
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
	// plannerManyMark is the same for functions that are told of very many objects at once:
	// DROP SCHEMA ... CASCADE tells of all.
	plannerManyMark = "/*planner for many*/"
	// plannerNames is where these settings are listed, plannerCaller where those of the caller
	// that are others are.
	plannerNames  = "/*planner names*/"
	plannerCaller = "/*planner of the caller*/"
)

// planned gives the functions in a text settings for the planner. They run in sessions of
// the application, in which a query on the catalogs may take minutes where enable_indexscan
// is off, or each query is compiled.
func planned(ctx context.Context, conn *pgx.Conn, text string) (string, error) {
	usual := pg.PlannerSettings()
	// Most commands are about few objects, and the catalogs may hold very many: they are looked up by their indexes,
	// where the planner would rather read a whole catalog, for it cannot know how many objects a command is about.
	lookup := map[string]string{"enable_hashjoin": "off", "enable_mergejoin": "off"}
	// Not every version has them.
	rows, err := conn.Query(ctx, `SELECT n, v FROM (VALUES ('jit', 'off'), ('plan_cache_mode', 'auto')) AS s (n, v)
		WHERE pg_catalog.current_setting(n, true) IS NOT NULL`)
	if err != nil {
		return "", pg.Classify(err, "look at the planner's settings")
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		usual[name] = value
		return nil
	})
	if err != nil {
		return "", pg.Classify(err, "look at the planner's settings")
	}
	var few, many strings.Builder
	var names, callers []string
	for _, name := range slices.Sorted(maps.Keys(usual)) {
		literal, value := sqlname.Literal(name), sqlname.Literal(usual[name])
		few.WriteString(" SET " + name + " = " + sqlname.Literal(cmp.Or(lookup[name], usual[name])))
		many.WriteString(" SET " + name + " = " + value)
		names = append(names, literal)
		current := "pg_catalog.current_setting(" + literal + ")"
		callers = append(callers, literal+", CASE WHEN "+current+" OPERATOR(pg_catalog.<>) "+value+" THEN "+current+" END")
	}
	return strings.NewReplacer(plannerMark, few.String(), plannerManyMark, many.String(), plannerNames, strings.Join(names, ", "), plannerCaller, strings.Join(callers, ", ")).Replace(text), nil
}
