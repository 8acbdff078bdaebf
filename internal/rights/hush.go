package rights

import "strings"

// hush and speak are statements between which no domain checks its values. A literal of a type that holds a domain (a
// composite, an array, a range) is read where the command with it is parsed, and reading it checks the domain: code of
// a user, with the rights of whoever gives the command. The constraints look like no CHECK meanwhile, to this
// transaction alone; their names stay, for comments. Domain CHECKs hang on no built-in function.
const (
	hush  = "DO $twinspan$ BEGIN IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user) THEN UPDATE pg_catalog.pg_constraint AS c SET contype = 't' WHERE c.contypid OPERATOR(pg_catalog.>) '0'::pg_catalog.oid AND c.contype OPERATOR(pg_catalog.=) 'c' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.refclassid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_proc,pg_catalog.pg_operator}'::pg_catalog.regclass[])); END IF; END $twinspan$;\n"
	speak = "\n;DO $twinspan$ BEGIN IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user) THEN UPDATE pg_catalog.pg_constraint AS c SET contype = 'c' WHERE c.contypid OPERATOR(pg_catalog.>) '0'::pg_catalog.oid AND c.contype OPERATOR(pg_catalog.=) 't'; END IF; END $twinspan$"
)

// Hushed is SQL that makes objects and is run with the agent's rights, so that reading its literals runs no code of
// users. It is to be run as one query string, by the simple protocol, and holds nothing that cannot be in a
// transaction; a domain that it makes itself is to be the last thing in it.
func Hushed(sql string) string {
	if !strings.Contains(sql, "'") {
		return sql
	}
	return hush + sql + speak
}
