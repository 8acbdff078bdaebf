package dbcopy

import (
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// hints are remedies of problems that the engines meet in a link's first copy too, in the
// words for a copy. Where the engines' own remedy speaks of a link, there is one here.
var hints = map[string]string{
	"schema_changed_during_seeding": "copy again, and leave the schema alone meanwhile",
	"schema_entry_failed":           "make it possible on the server that is to hold the copy, or change or drop it in the source; then copy again",
	"schema_entry_violated":         "the rows violate it in the source, too, where an index is corrupt or sorts otherwise: repair them there; then copy again",
	"seed_count":                    "look for what drops rows on the server that is to hold the copy; then copy again",
	"value_too_new":                 "have the copy on a server of version 17 or newer, or give the rows finite values; then copy again",
	"row_refused":                   "the server's encoding, its extensions' versions or a CHECK whose function sees other data differ from the source's; make them alike and copy again",
	"extension_table_missing":       "install the extension's package of the same version on the server that is to hold the copy; if somebody added the table to the extension: ALTER EXTENSION ... DROP TABLE in the source; then copy again",
	"owner_lacks_right":             "functions of users run when a row of this table is written, so rows are written with its owner's rights: GRANT him the right that the server names, on the server that is to hold the copy; then copy again",
	"right_missing":                 "the query of a materialized view runs with its owner's rights, and he lacks one on the server that is to hold the copy: GRANT it there; then copy again",
	"object_missing":                "something that a value or a function refers to is not there; see the server's log; then copy again",
	"table_changed":                 "the table is truncated or rewritten again and again; copy at a time when it is not",
	"session_lost":                  "the session that held the source's snapshot has ended, as when its server is restarted; copy again",
}

// forCopy gives a problem the remedy that a copy has.
func forCopy(err error) error {
	p := problem.As(err)
	hint, known := hints[p.Code]
	if !known && !strings.Contains(p.Hint, "link") {
		return err
	}
	if !known {
		hint = "copy again once it is mended"
	}
	clone := *p
	clone.Hint = hint
	return &clone
}
