package rights

import "strings"

// hush and speak are statements between which no type runs code of a user when a literal of it is read. It is read where
// the command with it is parsed, with the rights of whoever gives that: reading one of a type that holds a domain (a
// composite, an array, a range) checks the domain, and reading a range compares its bounds. For this transaction alone,
// domain CHECKs look like no CHECK meanwhile; their names stay, for comments. Those on built-in functions stay as they
// are. What compares bounds finds the first one lower, as it is in what the primary printed; what is written in
// another language than SQL or PL/pgSQL cannot be kept from running. Before version 14 no database is a twin.
const (
	hush = `DO $twinspan$ BEGIN IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user) THEN
	UPDATE pg_catalog.pg_constraint AS c SET contype = 't'
		WHERE c.contypid OPERATOR(pg_catalog.>) '0'::pg_catalog.oid AND c.contype OPERATOR(pg_catalog.=) 'c' AND EXISTS (SELECT FROM pg_catalog.pg_depend d
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) c.oid
				AND d.refclassid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_proc,pg_catalog.pg_operator}'::pg_catalog.regclass[]));
	IF EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngsubopc OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid)
		AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 140000 THEN
		CREATE TEMPORARY TABLE twinspan_hushed ON COMMIT DROP AS SELECT p.oid AS function, p.prosrc, p.prosqlbody, l.lanname
			FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang AND l.lanname OPERATOR(pg_catalog.=) ANY ('{sql,plpgsql}'::pg_catalog.name[])
			WHERE p.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND p.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT a.amproc::pg_catalog.oid
				FROM pg_catalog.pg_range r JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) r.rngsubopc
				JOIN pg_catalog.pg_amproc a ON a.amprocfamily OPERATOR(pg_catalog.=) o.opcfamily AND a.amprocnum OPERATOR(pg_catalog.=) '1'::pg_catalog.int2));
		UPDATE pg_catalog.pg_proc AS p SET prosqlbody = NULL, prosrc = CASE h.lanname WHEN 'sql' THEN 'SELECT -1' ELSE 'BEGIN RETURN -1; END' END
			FROM pg_temp.twinspan_hushed h WHERE h.function OPERATOR(pg_catalog.=) p.oid;
	END IF;
END IF; END $twinspan$;
`
	speak = `
;DO $twinspan$ BEGIN IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user) THEN
	UPDATE pg_catalog.pg_constraint AS c SET contype = 'c' WHERE c.contypid OPERATOR(pg_catalog.>) '0'::pg_catalog.oid AND c.contype OPERATOR(pg_catalog.=) 't';
	IF pg_catalog.to_regclass('pg_temp.twinspan_hushed') IS NOT NULL THEN
		UPDATE pg_catalog.pg_proc AS p SET prosrc = h.prosrc, prosqlbody = h.prosqlbody FROM pg_temp.twinspan_hushed h WHERE h.function OPERATOR(pg_catalog.=) p.oid;
		DROP TABLE pg_temp.twinspan_hushed;
	END IF;
END IF; END $twinspan$`
)

// Hushed is SQL that makes objects and is run with the agent's rights, so that reading its literals runs no code of
// users. It is to be run as one query string, by the simple protocol, and holds nothing that cannot be in a
// transaction; a domain or a type of ranges that it makes itself is to be the last thing in it.
func Hushed(sql string) string {
	if !strings.Contains(sql, "'") {
		return sql
	}
	return hush + sql + speak
}
