package pg

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// OptionsOf says what a list of options in the catalogs is about.
type OptionsOf string

// The lists.
const (
	ColumnOptions   OptionsOf = "columns"            // pg_attribute.attoptions of tables
	RelationOptions OptionsOf = "tables"             // pg_class.reloptions of all but indexes
	IndexOptions    OptionsOf = "indexes"            // pg_class.reloptions of indexes
	OperatorOptions OptionsOf = "columns of indexes" // pg_attribute.attoptions of indexes
)

// KnownOptions lists the names that people give in a list of options, in PostgreSQL 10
// to 18 and in access methods that are in use (reloptions.c, and the extensions'
// documentation). A server may keep others there for itself, as pg_attver in each
// column's since 15.20: they are nobody's definition.
func KnownOptions(of OptionsOf) []string {
	switch of {
	case ColumnOptions:
		return []string{"n_distinct", "n_distinct_inherited"}
	case RelationOptions:
		list := []string{"check_option", "fillfactor", "log_autovacuum_min_duration", "parallel_workers", "security_barrier", "security_invoker",
			"toast_tuple_target", "user_catalog_table", "vacuum_index_cleanup", "vacuum_max_eager_freeze_failure_rate", "vacuum_truncate"}
		for _, name := range []string{"analyze_scale_factor", "analyze_threshold", "enabled", "freeze_max_age", "freeze_min_age", "freeze_table_age", "multixact_freeze_max_age",
			"multixact_freeze_min_age", "multixact_freeze_table_age", "vacuum_cost_delay", "vacuum_cost_limit", "vacuum_insert_scale_factor", "vacuum_insert_threshold",
			"vacuum_max_threshold", "vacuum_scale_factor", "vacuum_threshold"} {
			list = append(list, "autovacuum_"+name)
		}
		return list
	case IndexOptions:
		return append(bloomColumns(), "autosummarize", "buffering", "deduplicate_items", "fastupdate", "fillfactor", "gin_pending_list_limit", "pages_per_range",
			"vacuum_cleanup_index_scale_factor", "length", // bloom
			"attach", "order_by_attach", "to", // rum
			"ef_construction", "lists", "m") // pgvector
	case OperatorOptions:
		return []string{"false_positive_rate", "n_distinct_per_range", "numranges", "siglen", "values_per_range"}
	}
	return nil
}

// bloomColumns are the options col1 to col32 of the access method bloom.
func bloomColumns() []string {
	names := make([]string, 32)
	for i := range names {
		names[i] = "col" + strconv.Itoa(i+1)
	}
	return names
}

// Tuning says whether an option of a relation does no more than tune: a server that
// does not know it keeps the same rows, and shows them to the same people.
func Tuning(name string) bool {
	return !slices.Contains([]string{"check_option", "security_barrier", "security_invoker", "user_catalog_table"}, name)
}

// UnknownOption says that the server refused a statement for an option that it does not
// know (reloptions.c, parseRelOptionsInternal), and for which of these.
func UnknownOption(err error, names []string) (string, bool) {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "22023" || !strings.HasPrefix(e.Routine, "parseRelOptions") {
		return "", false
	}
	// The message is in the server's language; the name in it is the same in each.
	words := strings.FieldsFunc(e.Message, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	for _, name := range names {
		if slices.Contains(words, name) {
			return name, true
		}
	}
	return "", false
}
