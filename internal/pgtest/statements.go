package pgtest

import (
	_ "embed"
	"strings"
)

//go:embed statements.sql
var statements string

// Statements returns query strings that make schemas of many forms, and such that change
// them, for what has to hold on every version. Each may need what came before it; what a
// version lacks, or its build, it refuses.
func Statements() (making, changing []string) {
	first, last, _ := strings.Cut(strings.TrimSpace(statements), "\n--+\n")
	return strings.Split(first, "\n--\n")[1:], strings.Split(last, "\n--\n")
}
