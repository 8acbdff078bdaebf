package gate

import (
	"context"

	"github.com/twinspan/twinspan/internal/pg"
)

// Missing lists what of a gate that should refuse is not there, or does not: nothing while
// it is whole.
func Missing(ctx context.Context, q Querier) ([]string, error) {
	var there bool
	var gone []string
	err := q.QueryRow(ctx, `SELECT pg_catalog.to_regclass('twinspan.gate_state') IS NOT NULL`).Scan(&there)
	if err == nil && there {
		var state int64
		err = q.QueryRow(ctx, `SELECT last_value FROM twinspan.gate_state`).Scan(&state)
		there = state == refuse || state == await
	}
	if err != nil {
		return nil, pg.Classify(err, "look at the gate")
	}
	if !there {
		gone = append(gone, "the state of the gate")
	}
	var rest []string
	err = q.QueryRow(ctx, `SELECT coalesce(array_agg(what), '{}') FROM (
		SELECT 'the function ' || f AS what FROM unnest('{twinspan.gate(),twinspan.gate_ddl(),twinspan.refuse(text)}'::text[]) f WHERE to_regprocedure(f) IS NULL
		UNION ALL SELECT 'the event trigger twinspan_gate' WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'twinspan_gate' AND evtenabled = 'A')
		UNION ALL SELECT 'default_transaction_read_only of the database' WHERE NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) line
			WHERE s.setrole = 0 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND line = 'default_transaction_read_only=on')
		UNION ALL (SELECT 'the trigger of ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgname = 'twinspan_gate'
			WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
			AND g.tgenabled IS DISTINCT FROM 'A' ORDER BY c.oid LIMIT 5)) x`).Scan(&rest)
	return append(gone, rest...), pg.Classify(err, "look at the gate")
}
