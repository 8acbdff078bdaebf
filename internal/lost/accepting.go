package lost

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// What an operator accepts of the way back, by code.
const (
	AcceptTables  = "reseed_tables"
	AcceptDrop    = "drop_objects"
	AcceptKeep    = "keep_schema"
	AcceptCompare = "compare_database"
	AcceptCopy    = "copy_database"
)

// Consent refuses what was not accepted.
func Consent(name string, needed, accepted []string) error {
	if slices.Contains(accepted, AcceptCopy) {
		return nil
	}
	missing := slices.DeleteFunc(slices.Clone(needed), func(code string) bool { return slices.Contains(accepted, code) })
	if len(missing) == 0 {
		return nil
	}
	return problem.New(problem.Conflict, "rejoin_not_accepted", "the rejoin of link %s does more than overwrite rows: %s", name, strings.Join(missing, ", ")).On(name).
		WithHint("twinspan link rejoin %[1]s --plan says what; twinspan link rejoin %[1]s --accept %[2]s does it", name, strings.Join(needed, ","))
}
