package gate

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
)

// wholeDDL says of a row of pg_event_trigger that it is the gate's, as it was made.
const wholeDDL = `evtname = 'twinspan_gate' AND evtevent = 'ddl_command_start' AND evttags IS NULL AND evtfoid = pg_catalog.to_regprocedure('twinspan.gate_ddl()')`

// Missing lists what of a gate that should refuse is not there, is not as it was made, or does not:
// nothing while it is whole. changed are functions with other texts than this program's: an earlier
// release made them, or somebody has replaced them.
func Missing(ctx context.Context, conn *pgx.Conn) (gone, changed []string, err error) {
	var there bool
	err = conn.QueryRow(ctx, `SELECT pg_catalog.to_regclass('twinspan.gate_state') IS NOT NULL`).Scan(&there)
	if err == nil && there {
		var state int64
		err = conn.QueryRow(ctx, `SELECT last_value FROM twinspan.gate_state`).Scan(&state)
		there = state == refuse || state == await
	}
	if err != nil {
		return nil, nil, pg.Classify(err, "look at the gate")
	}
	if !there {
		gone = append(gone, "the state of the gate")
	}
	var rest []string
	err = conn.QueryRow(ctx, `SELECT coalesce(array_agg(what), '{}') FROM (
		SELECT 'the event trigger twinspan_gate' AS what WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE `+wholeDDL+` AND evtenabled = 'A')
		UNION ALL SELECT 'default_transaction_read_only of the database' WHERE NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) line
			WHERE s.setrole = 0 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND line = 'default_transaction_read_only=on')
		UNION ALL (SELECT 'the trigger of ' || c.oid::regclass`+openTables+` LIMIT 5)) x`).Scan(&rest)
	if err != nil {
		return nil, nil, pg.Classify(err, "look at the gate")
	}
	lost, changed, err := functionsChanged(ctx, conn)
	return append(append(gone, rest...), lost...), changed, err
}

var functionText = regexp.MustCompile(`(?s)CREATE OR REPLACE FUNCTION (twinspan\.\w+)\(([^)]*)\) RETURNS[^$]*?LANGUAGE plpgsql([^$]*?) AS\s+\$\$(.*?)\$\$;`)

// function is what decides what a function does.
type function struct{ sum, definer, settings string }

// functions are those by which the gate refuses, as this program makes them, by their names.
var functions = sync.OnceValue(func() map[string]function {
	all := map[string]function{}
	for _, m := range functionText.FindAllStringSubmatch(gateSQL+catalog.HomeSQL(), -1) {
		switch m[1] {
		case "twinspan.gate", "twinspan.gate_ddl", "twinspan.refuse", "twinspan.ticket", "twinspan.by_superuser", "twinspan.copied":
			sum := md5.Sum([]byte(m[4]))
			f := function{sum: hex.EncodeToString(sum[:]), definer: "false"}
			if strings.Contains(m[3], "SECURITY DEFINER") {
				f.definer = "true"
			}
			if _, path, ok := strings.Cut(m[3], "SET search_path = "); ok {
				f.settings = "search_path=" + path
			}
			all[m[1]] = f
		}
	}
	return all
})

// later are functions that the first release had not.
var later = []string{"twinspan.ticket", "twinspan.by_superuser", "twinspan.copied"}

// functionsChanged lists the functions that are gone, or belong to somebody else than the schema, and those of another text.
func functionsChanged(ctx context.Context, conn *pgx.Conn) (gone, changed []string, err error) {
	rows, err := conn.Query(ctx, `SELECT 'twinspan.' || p.proname, pg_catalog.md5(p.prosrc), p.prosecdef::text, coalesce(pg_catalog.array_to_string(p.proconfig, ' '), ''), p.proowner = n.nspowner
		FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'twinspan'`)
	if err != nil {
		return nil, nil, pg.Classify(err, "look at the gate's functions")
	}
	found := map[string]function{}
	var name string
	var f function
	var ours bool
	_, err = pgx.ForEachRow(rows, []any{&name, &f.sum, &f.definer, &f.settings, &ours}, func() error {
		if ours {
			found[name] = f
		}
		return nil
	})
	for name, want := range functions() {
		switch f, ok := found[name]; {
		case !ok && !slices.Contains(later, name):
			gone = append(gone, "the function "+name)
		case f != want:
			changed = append(changed, "the function "+name)
		}
	}
	return gone, changed, pg.Classify(err, "look at the gate's functions")
}
