package link

import (
	"context"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// creates finds what the statements of an agent make in the schema twinspan that can hold
// rows or numbers.
var creates = regexp.MustCompile(`(?i)\bCREATE\s+(?:UNLOGGED\s+)?(?:TABLE|SEQUENCE|VIEW)\s+(?:IF\s+NOT\s+EXISTS\s+)?twinspan\.([a-z_]+)`)

// madeHere returns the names of the relations that agents make in the schema twinspan,
// from the very texts that make them.
func madeHere() []string {
	var names []string
	for _, text := range []string{catalog.Text(), capture.Text(), gate.Text()} {
		for _, found := range creates.FindAllStringSubmatch(text, -1) {
			names = append(names, strings.ToLower(found[1]))
		}
	}
	return names
}

// mostNamed is how many of somebody's objects are named in the problem.
const mostNamed = 10

// onlyOurs sees that the schema twinspan holds no table, view or sequence but what agents
// make: dropping the schema would drop it as well, and nobody has a copy of it. A role
// named twinspan makes its tables there ("$user" of search_path). What belongs to a
// table, as a sequence does to its identity column, goes by its table.
func onlyOurs(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'twinspan' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relname <> ALL ($1)
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
		ORDER BY 1`, madeHere())
	if err != nil {
		return pg.Classify(err, "look for objects of others in the schema twinspan")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "look for objects of others in the schema twinspan")
	}
	if len(names) == 0 {
		return nil
	}
	more := ""
	if len(names) > mostNamed {
		names, more = names[:mostNamed], ", ..."
	}
	return problem.New(problem.Conflict, "schema_in_use", "the schema twinspan holds what no link has made: %s%s", strings.Join(names, ", "), more).On("twinspan."+names[0]).
		WithHint("move it, with the link's agent still at work: ALTER TABLE twinspan.%s SET SCHEMA public; or drop it; the removal goes on by itself", names[0])
}
