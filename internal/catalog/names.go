package catalog

import "strings"

// ObjectName returns the name of everything that a link makes outside the schema
// twinspan: its slot and publication on the primary, its origin on the
// secondary. Slots and origins are of the whole instance, so the name comes
// from the link's id, not from its name.
func ObjectName(linkID string) string {
	return "twinspan_" + strings.ReplaceAll(linkID, "-", "")
}
