package ddl

import (
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// dropOwned is DROP OWNED in the current database alone: the command itself would take
// from the roles their rights on other databases and on parameters, too
// (pg_shdepend.c, shdepDropOwned), which are each server's own. Large objects come in
// passes; publications, subscriptions and event triggers are not carried.
func (c *Change) dropOwned() string {
	t := scan(string(c.SQL), c.Conforming)
	var roles []string
	for i := 3; i < len(t); i++ {
		switch {
		case t[i].kind == quoted:
			roles = append(roles, t[i].word)
		case t[i].is("cascade", "restrict"), t[i].kind != word:
		case t[i].is("current_user", "current_role", "user"):
			roles = append(roles, string(c.Role))
		case t[i].is("session_user"):
			roles = append(roles, string(c.Session))
		default:
			roles = append(roles, t[i].word)
		}
	}
	return "DO " + sqlname.Literal(strings.Replace(ownedBody, "$roles", texts(roles), 1))
}

// ownedBody drops and revokes step by step. Everything goes with CASCADE: on the
// primary nothing was left that depended on it.
const ownedBody = `DECLARE
	roles pg_catalog.text[] := $roles;
	r pg_catalog.record;
	kind pg_catalog.text;
	name pg_catalog.text;
BEGIN
	SET LOCAL search_path = pg_catalog, pg_temp;
	FOR r IN SELECT s.classid, s.objid, s.deptype, u.rolname AS role, u.oid AS role_oid
	           FROM pg_catalog.pg_shdepend s
	           JOIN pg_catalog.pg_database d ON d.oid = s.dbid AND d.datname = pg_catalog.current_database()
	           JOIN pg_catalog.pg_roles u ON s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND u.oid = s.refobjid
	          WHERE u.rolname = ANY (roles) AND s.deptype IN ('o', 'a', 'r')
	          GROUP BY 1, 2, 3, 4, 5
	          ORDER BY s.deptype <> 'r', s.deptype <> 'a', s.classid <> 'pg_catalog.pg_default_acl'::pg_catalog.regclass,
	                   s.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass, s.objid LOOP
		IF r.classid = 'pg_catalog.pg_default_acl'::pg_catalog.regclass THEN
			FOR name IN SELECT pg_catalog.concat(pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I', o.rolname),
			                   (SELECT pg_catalog.format(' IN SCHEMA %I', n.nspname) FROM pg_catalog.pg_namespace n WHERE n.oid = a.defaclnamespace), g.clause)
			              FROM pg_catalog.pg_default_acl a JOIN pg_catalog.pg_roles o ON o.oid = a.defaclrole
			             CROSS JOIN LATERAL (SELECT CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' END AS objects) k
			             CROSS JOIN LATERAL (
			                SELECT 1 AS place, pg_catalog.format(' REVOKE ALL ON %s FROM %s', k.objects, coalesce(pg_catalog.quote_ident(x.rolname), 'PUBLIC')) AS clause
			                  FROM pg_catalog.aclexplode(a.defaclacl) e LEFT JOIN pg_catalog.pg_roles x ON x.oid = e.grantee
			                 WHERE r.deptype = 'o' OR e.grantee = r.role_oid
			                UNION SELECT 2, pg_catalog.format(' GRANT ALL ON %s TO %I', k.objects, o.rolname) WHERE r.deptype = 'o' AND a.defaclnamespace = 0
			                UNION SELECT 3, pg_catalog.format(' GRANT %s ON %s TO PUBLIC', CASE k.objects WHEN 'TYPES' THEN 'USAGE' ELSE 'EXECUTE' END, k.objects)
			                       WHERE r.deptype = 'o' AND a.defaclnamespace = 0 AND k.objects IN ('TYPES', 'ROUTINES')) g
			             WHERE a.oid = r.objid AND k.objects IS NOT NULL ORDER BY g.place LOOP
				EXECUTE name;
			END LOOP;
			CONTINUE;
		ELSIF r.classid = 'pg_catalog.pg_user_mapping'::pg_catalog.regclass THEN
			FOR name IN SELECT pg_catalog.format('DROP USER MAPPING IF EXISTS FOR %s SERVER %I', coalesce(pg_catalog.quote_ident(u.rolname), 'PUBLIC'), s.srvname)
			              FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid LEFT JOIN pg_catalog.pg_roles u ON u.oid = m.umuser
			             WHERE m.umid = r.objid LOOP
				EXECUTE name;
			END LOOP;
			CONTINUE;
		ELSIF r.deptype = 'r' THEN
			FOR name IN SELECT CASE WHEN p.polroles <@ ARRAY(SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = ANY (roles))
			                   THEN pg_catalog.format('DROP POLICY IF EXISTS %I ON %I.%I', p.polname, n.nspname, c.relname)
			                   ELSE pg_catalog.format('ALTER POLICY %I ON %I.%I TO %s', p.polname, n.nspname, c.relname,
			                        (SELECT pg_catalog.string_agg(coalesce(pg_catalog.quote_ident(u.rolname), 'PUBLIC'), ', ')
			                           FROM pg_catalog.unnest(p.polroles) g LEFT JOIN pg_catalog.pg_roles u ON u.oid = g WHERE g <> r.role_oid)) END
			              FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			             WHERE p.oid = r.objid LOOP
				EXECUTE name;
			END LOOP;
			CONTINUE;
		END IF;
		-- Something before may have taken it along.
		SELECT i.type, i.identity INTO kind, name FROM pg_catalog.pg_identify_object(r.classid, r.objid, 0) i;
		CONTINUE WHEN name IS NULL OR kind IN ('large object', 'publication', 'publication relation', 'subscription', 'event trigger');
		IF r.deptype = 'a' THEN
			kind := CASE kind WHEN 'view' THEN 'TABLE' WHEN 'materialized view' THEN 'TABLE' WHEN 'foreign table' THEN 'TABLE' WHEN 'aggregate' THEN 'FUNCTION'
				WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'server' THEN 'FOREIGN SERVER' ELSE kind END;
			EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %I CASCADE', kind, name, r.role);
		ELSIF r.classid <> 'pg_catalog.pg_class'::pg_catalog.regclass OR kind NOT IN ('index', 'toast table') THEN
			-- What belongs to something else goes with that.
			CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = r.classid AND d.objid = r.objid AND d.objsubid = 0 AND d.deptype IN ('i', 'P', 'e'));
			kind := CASE kind WHEN 'composite type' THEN 'TYPE' WHEN 'statistics object' THEN 'STATISTICS' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' ELSE kind END;
			EXECUTE pg_catalog.format('DROP %s IF EXISTS %s CASCADE', kind, name);
		END IF;
	END LOOP;
END`
