package catalog

import (
	_ "embed"
)

//go:embed home.sql
var homeSQL string

// HomeSQL makes, in the schema twinspan, what tells a linked database from a copy of it, and
// notes this database as the linked one. Run it only where a link's record is proved to be
// the agent's.
func HomeSQL() string { return homeSQL }
