package link

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/usage"
)

// creates finds what the statements of an agent make in the schema twinspan that can hold
// rows or numbers.
var creates = regexp.MustCompile(`(?i)\bCREATE\s+(?:UNLOGGED\s+)?(?:TABLE|SEQUENCE|VIEW)\s+(?:IF\s+NOT\s+EXISTS\s+)?twinspan\.([a-z_]+)`)

// madeHere returns the names of the relations that agents make in the schema twinspan,
// from the very texts that make them. They are read once: every link asks every few seconds.
var madeHere = sync.OnceValue(func() []string {
	var names []string
	for _, text := range []string{catalog.Text(), capture.Text(), gate.Text(), usage.Text()} {
		for _, found := range creates.FindAllStringSubmatch(text, -1) {
			names = append(names, strings.ToLower(found[1]))
		}
	}
	return names
})

// onlyOurs sees that the schema twinspan holds nothing that dropping it would take from
// somebody: a table, view, sequence or type that no agent makes, of which nobody has a copy, or a
// function that something elsewhere calls. A role named twinspan makes its tables there ("$user" of
// search_path). What belongs to a table, as a sequence does to its identity column, goes by its table.
func onlyOurs(ctx context.Context, q catalog.Querier) error {
	var names []string
	err := q.QueryRow(ctx, `SELECT ARRAY(
		SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		 WHERE n.nspname = 'twinspan' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND c.relname <> ALL ($1::text[])
		   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
		UNION ALL
		SELECT t.typname::text FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = 'twinspan' AND t.typtype IN ('d', 'e', 'r')
		UNION ALL
		SELECT p.proname::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		 WHERE n.nspname = 'twinspan' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid
			AND d.classid IN ('pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass,
				'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass))
		ORDER BY 1)`, madeHere()).Scan(&names)
	if err != nil {
		return pg.Classify(err, "look for objects of others in the schema twinspan")
	}
	if len(names) == 0 {
		return nothingHangsOn(ctx, q)
	}
	first := names[0]
	return problem.New(problem.Conflict, "schema_in_use", "the schema twinspan holds what no link has made: %s", problem.Names(names)).On("twinspan."+first).
		WithHint("it does not cross, and a removal of the link waits for it: move it, with the link's agent still at work: ALTER TABLE twinspan.%s SET SCHEMA public (a type: ALTER TYPE); or drop it", first)
}

// nothingHangsOn sees that nothing elsewhere would go with the schema twinspan.
func nothingHangsOn(ctx context.Context, q catalog.Querier) error {
	names, err := catalog.Dependants(ctx, q)
	if err != nil || len(names) == 0 {
		return err
	}
	first := names[0]
	return problem.New(problem.Conflict, "schema_in_use", "what is not the link's depends on its schema twinspan: %s", problem.Names(names)).On(first).
		WithHint("a removal of the link would drop it, and waits: drop it, with the link's agent still at work")
}
