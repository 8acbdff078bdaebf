package syncrep

import "strings"

// Member returns the application_name of the session that reads the slot of a link
// for which commits are to wait. It comes from the slot, whose name is the
// instance's own: links' names are those of a database and may be too long.
func Member(slot string) string { return Prefix + slot }

// Object returns the name of the slot that a member reads, "" for other members.
func Object(member string) string {
	if !isLink(member) {
		return ""
	}
	return strings.ToLower(member[len(Prefix):])
}
