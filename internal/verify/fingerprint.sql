-- What a database consists of, an object in each row: kind, name, detail; whether only
-- servers of one version can be compared in it; whether it is an index that cannot be
-- used, or belongs to a partition that is being detached; for what can be built again its table, own name, definition, and
-- the definition of the index below it; its owner, and what else it takes to read a part of its detail again. Columns that older catalogs lack are read
-- by way of jsonb. What a server prints from a parse tree stands between the characters
-- 1 and 2, behind a letter that says how it is read again (reread.go). Columns of catalogs that are a server's own business are not read:
-- docs/design/0013. Nothing of the link itself, of extensions, of temporary tables.
WITH space AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
     WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND nspname !~ '^pg_(toast|temp)'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), rel AS (
    SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relowner, c.relacl, c.relreplident, c.relrowsecurity, c.relforcerowsecurity,
           c.relpartbound, c.reloptions, c.reloftype, c.relam, n.nspname, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
           pg_get_userbyid(c.relowner)::text AS owner,
           c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')) AS owned
      FROM pg_class c JOIN space n ON n.oid = c.relnamespace
     WHERE c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
       AND NOT (c.relkind = 'c' AND EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = c.reltype))
), identity AS (
    -- What the link made FULL had another identity before. One whose index is gone is the same as none.
    SELECT c.oid, CASE WHEN coalesce(i.was::text, c.relreplident::text) = 'i' AND NOT EXISTS (SELECT FROM pg_index x JOIN pg_class n ON n.oid = x.indexrelid
                      WHERE x.indrelid = c.oid AND CASE WHEN i.oid IS NULL THEN x.indisreplident ELSE n.relname = i.was_index END)
                  THEN 'n' ELSE coalesce(i.was::text, c.relreplident::text) END AS was
      FROM rel c LEFT JOIN /*identity*/ i ON i.oid = c.oid
), op AS (
    SELECT o.oid, o.opcname, n.nspname FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
), coll AS (
    SELECT o.oid, quote_ident(n.nspname) || '.' || quote_ident(o.collname) AS name FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace
)
SELECT 'schema', quote_ident(nspname),
       CASE WHEN nspname <> 'public' THEN 'owner ' || pg_get_userbyid(nspowner) || (SELECT /*acl*/ FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a WHERE a.grantee <> nspowner) ELSE '' END,
       false, false, '', '', '', '', '', '', ''
  FROM space WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_namespace'::regclass AND m.objid = space.oid)
UNION ALL
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'composite type' ELSE 'table' END,
       name,
       -- A sequence that belongs to a column has the owner of its table.
       concat_ws(', ', CASE WHEN NOT owned THEN 'owner ' || owner END, 'kind ' || relkind::text,
           -- From 15 on the sequence of a column is unlogged with its table.
           CASE WHEN relpersistence = 'u' AND NOT owned THEN 'unlogged' END,
           CASE WHEN relkind IN ('r', 'p') THEN 'replica identity ' || (SELECT was FROM identity i WHERE i.oid = rel.oid) END,
           CASE WHEN relrowsecurity THEN 'row security' END, CASE WHEN relforcerowsecurity THEN 'forced row security' END,
           'partitioned by ' || E'\x01k' || pg_get_partkeydef(oid) || E'\x02', E'\x01n' || pg_get_expr(relpartbound, oid) || E'\x02',
           'child of ' || (SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = rel.oid),
           'with ' || (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(reloptions) o WHERE split_part(o, '=', 1) = ANY (/*options of tables*/)),
           'of type ' || nullif(reloftype, 0)::regtype::text,
           (SELECT concat_ws(' ', format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment', s.seqincrement, 'from', s.seqmin, 'to', s.seqmax, 'cache', s.seqcache, CASE WHEN s.seqcycle THEN 'cycle' END)
              FROM pg_sequence s WHERE s.seqrelid = rel.oid))
           || CASE WHEN relkind = 'c' THEN '' ELSE (SELECT /*acl*/ FROM aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) a WHERE a.grantee <> relowner) END,
       false, false, nspname, relname, relname,
       coalesce((SELECT concat_ws(' ', 'AS', format_type(s.seqtypid, NULL), 'START', s.seqstart, 'INCREMENT', s.seqincrement, 'MINVALUE', s.seqmin, 'MAXVALUE', s.seqmax, 'CACHE', s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
                   FROM pg_sequence s WHERE s.seqrelid = rel.oid), ''), '', owner, ''
  FROM rel WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
UNION ALL
SELECT 'column order', name, (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped),
       false, false, nspname, relname, '', '', '', '', ''
  FROM rel WHERE relkind IN ('r', 'p', 'f') AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped)
UNION ALL
SELECT 'definition of view', name, E'\x01q' || pg_get_viewdef(oid) || E'\x02', false, false, nspname, relname, '', '', '', owner, '' FROM rel WHERE relkind IN ('v', 'm')
UNION ALL
SELECT 'column', name || '.' || quote_ident(a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod),
           'collate ' || (SELECT coll.name FROM coll JOIN pg_type t ON t.oid = a.atttypid WHERE coll.oid = a.attcollation AND coll.oid <> t.typcollation),
           -- A view that was a table has it still; nothing uses it, and no dump has it.
           CASE WHEN a.attnotnull AND relkind <> 'v' THEN 'not null' END,
           CASE WHEN coalesce(to_jsonb(a)->>'attgenerated', '') <> '' THEN 'generated' ELSE NULL END,
           'default ' || (SELECT E'\x01r' || pg_get_expr(d.adbin, d.adrelid) || E'\x02' FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum),
           -- From 17 on a partition has the identity of its parent's column.
           CASE WHEN EXISTS (SELECT FROM pg_inherits h JOIN pg_attribute pa ON pa.attrelid = h.inhparent AND pa.attname = a.attname AND pa.attidentity <> '' WHERE h.inhrelid = rel.oid AND rel.relpartbound IS NOT NULL) THEN NULL
                WHEN a.attidentity = 'a' THEN 'identity always' WHEN a.attidentity = 'd' THEN 'identity by default' END,
           'options ' || (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(a.attoptions) o WHERE split_part(o, '=', 1) = ANY (/*options of columns*/)),
           (SELECT nullif(/*acl*/, '') FROM aclexplode(a.attacl) a)),
       false, false, nspname, relname, '', '', '', owner, ''
  FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
UNION ALL
SELECT 'constraint', name || ': ' || quote_ident(o.conname),
       -- Of an exclusion constraint keys and condition are those of its index.
       CASE o.contype WHEN 'c' THEN 'CHECK (' || E'\x01r' || pg_get_expr(o.conbin, o.conrelid) || E'\x02)' || CASE WHEN o.connoinherit THEN ' NO INHERIT' ELSE '' END
            WHEN 'x' THEN 'EXCLUDE WITH ' || (SELECT string_agg(e::regoperator::text, ', ' ORDER BY n) FROM unnest(o.conexclop) WITH ORDINALITY AS e (e, n))
                || CASE WHEN o.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN o.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
            ELSE regexp_replace(pg_get_constraintdef(o.oid), ' NOT (VALID|ENFORCED)$', '') END
           || CASE WHEN o.enforced THEN '' ELSE ' (not enforced)' END || CASE WHEN o.convalidated THEN '' ELSE ' (not validated)' END,
       false, EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = rel.oid AND to_jsonb(h)->>'inhdetachpending' = 'true'), nspname, relname, o.conname, pg_get_constraintdef(o.oid),
       CASE WHEN o.contype IN ('p', 'u') AND o.conparentid = 0 AND relkind = 'r' THEN pg_get_indexdef(o.conindid) ELSE '' END, owner, ''
  FROM (SELECT oid, conname, conrelid, contype, conindid, conbin, connoinherit, conexclop, condeferrable, condeferred, convalidated,
               coalesce((to_jsonb(pg_constraint)->>'conparentid')::oid, 0) AS conparentid, coalesce((to_jsonb(pg_constraint)->>'conenforced')::boolean, true) AS enforced FROM pg_constraint) o
  JOIN rel ON rel.oid = o.conrelid
 -- What a foreign key has made for partitions is named by the server, by each version otherwise.
 WHERE o.contype IN ('p', 'u', 'x', 'c', 'f') AND NOT (o.contype = 'f' AND o.conparentid <> 0)
UNION ALL
SELECT 'index', quote_ident(x.nspname) || '.' || quote_ident(x.relname),
       concat_ws(' ', 'on ' || t.name, CASE WHEN x.relkind = 'I' THEN 'partitioned' END, CASE WHEN i.indisunique THEN 'unique' END, CASE WHEN i.nulls THEN 'nulls not distinct' END,
           'using ' || (SELECT quote_ident(am.amname) FROM pg_am am WHERE am.oid = x.relam),
           '(' || (SELECT string_agg(concat_ws(' ', CASE WHEN k.attnum = 0 THEN E'\x01r' || pg_get_indexdef(i.indexrelid, k.n::int, false) || E'\x02' ELSE (SELECT quote_ident(a.attname) FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum) END,
                       -- The type name has one since 12.
                       'collate ' || (SELECT nullif(coll.name, coalesce((SELECT d.name FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN coll d ON d.oid = t.typcollation WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum), 'pg_catalog."default"'))
                            FROM coll WHERE coll.oid = i.indcollation[k.n - 1]),
                       (SELECT CASE op.nspname WHEN 'pg_catalog' THEN '' ELSE quote_ident(op.nspname) || '.' END || quote_ident(op.opcname) FROM op WHERE op.oid = i.indclass[k.n - 1]),
                       (SELECT '(' || string_agg(o, ', ' ORDER BY o COLLATE "C") || ')' FROM pg_attribute a CROSS JOIN unnest(a.attoptions) o
                         WHERE a.attrelid = i.indexrelid AND a.attnum = k.n AND split_part(o, '=', 1) = ANY (/*options of columns of indexes*/)),
                       CASE i.indoption[k.n - 1] WHEN 1 THEN 'desc nulls last' WHEN 2 THEN 'nulls first' WHEN 3 THEN 'desc' END), ', ' ORDER BY k.n)
                    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) WHERE k.n <= i.keys) || ')',
           'include (' || (SELECT string_agg((SELECT quote_ident(a.attname) FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum), ', ' ORDER BY k.n)
                             FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) WHERE k.n > i.keys) || ')',
           'with ' || (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(x.reloptions) o WHERE split_part(o, '=', 1) = ANY (/*options of indexes*/)),
           'where ' || E'\x01r' || pg_get_expr(i.indpred, i.indrelid) || E'\x02'),
       false, NOT (i.indisvalid AND i.indisready), t.nspname, t.relname, x.relname,
       CASE WHEN EXISTS (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid AND o.contype IN ('p', 'u', 'x')) THEN '' ELSE pg_get_indexdef(i.indexrelid) END, x.relkind::text, t.owner, ''
  FROM (SELECT indexrelid, indrelid, indisunique, indisvalid, indisready, indkey, indclass, indcollation, indoption, indpred,
               coalesce((to_jsonb(pg_index)->>'indnkeyatts')::int, indnatts) AS keys, coalesce((to_jsonb(pg_index)->>'indnullsnotdistinct')::boolean, false) AS nulls FROM pg_index) i
  JOIN rel x ON x.oid = i.indexrelid JOIN rel t ON t.oid = i.indrelid
UNION ALL
SELECT 'trigger', name || ': ' || quote_ident(t.tgname), regexp_replace(replace(pg_get_triggerdef(t.oid), ' EXECUTE PROCEDURE ', ' EXECUTE FUNCTION '), ' WHEN [(](.*)[)] EXECUTE FUNCTION ', E' WHEN (\x01w\\1\x02) EXECUTE FUNCTION ') || ' (enabled ' || t.tgenabled::text || ')',
       false, false, nspname, relname, t.tgname, '', '', owner, ''
  FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgname NOT LIKE 'twinspan\_%'
   -- Versions before 13 call internal what a trigger has made for partitions; it says something where it is enabled otherwise.
   AND NOT EXISTS (SELECT FROM pg_trigger u WHERE u.oid = nullif((to_jsonb(t)->>'tgparentid')::oid, 0) AND u.tgenabled = t.tgenabled)
UNION ALL
SELECT 'rule', name || ': ' || quote_ident(r.rulename), 'on ' || r.event || E' \x01u' || substr(r.def, strpos(r.def, ' TO ' || name) + length(' TO ' || name)) || E'\x02' || ' (enabled ' || r.ev_enabled::text || ')',
       false, false, nspname, relname, r.rulename, '', '', owner, r.event
  FROM (SELECT rulename, ev_class, ev_enabled, pg_get_ruledef(oid) AS def, CASE ev_type WHEN '1' THEN 'SELECT' WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END AS event FROM pg_rewrite WHERE rulename <> '_RETURN') r
  JOIN rel ON rel.oid = r.ev_class
UNION ALL
SELECT 'policy', name || ': ' || quote_ident(p.polname),
       concat_ws(' ', p.polcmd, CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
           'to ' || (SELECT string_agg(r, ', ' ORDER BY r COLLATE "C") FROM (SELECT CASE u WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(u)::text END AS r FROM unnest(p.polroles) u) v),
           'using ' || E'\x01r' || pg_get_expr(p.polqual, p.polrelid) || E'\x02', 'check ' || E'\x01r' || pg_get_expr(p.polwithcheck, p.polrelid) || E'\x02'),
       false, false, nspname, relname, p.polname, '', '', owner, ''
  FROM pg_policy p JOIN rel ON rel.oid = p.polrelid
UNION ALL
-- Which kinds of statistics there are depends on the version.
SELECT 'statistics', quote_ident(n.nspname) || '.' || quote_ident(s.stxname), 'owner ' || pg_get_userbyid(s.stxowner) || ', ' || concat_ws(' ', (SELECT string_agg(k::text, '' ORDER BY k::text) FROM unnest(s.stxkind) k), 'on ' || rel.name,
           (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys::int2[])), /*statistics*/),
       true, false, rel.nspname, rel.relname, '', '', '', rel.owner, ''
  FROM pg_statistic_ext s JOIN space n ON n.oid = s.stxnamespace JOIN rel ON rel.oid = s.stxrelid
UNION ALL
-- Versions from 14 on say IN for parameters of procedures.
SELECT 'function', p.name || '(' || p.identity || ')',
       concat_ws(', ', 'owner ' || pg_get_userbyid(p.proowner), (SELECT lanname FROM pg_language l WHERE l.oid = p.prolang),
           'defaults ' || (SELECT string_agg(n || E' \x01s' || pg_get_function_arg_default(p.oid, n) || E'\x02', ', ' ORDER BY n) FROM generate_series(1, coalesce(array_length(p.proallargtypes, 1), p.pronargs)) n WHERE p.pronargdefaults > 0 AND pg_get_function_arg_default(p.oid, n) IS NOT NULL),
           'returns ' || pg_get_function_result(p.oid),
           p.provolatile, p.proparallel, CASE WHEN p.proisstrict THEN 'strict' END, CASE WHEN p.prosecdef THEN 'security definer' END, CASE WHEN p.proleakproof THEN 'leakproof' END,
           'cost ' || p.procost, 'rows ' || p.prorows,
           -- A session that quotes all identifiers leaves quotes in lists of names.
           (SELECT string_agg(CASE WHEN c.line ~ '^(search_path|temp_tablespaces|local_preload_libraries|session_preload_libraries)=' THEN regexp_replace(c.line, '(=|, )"([a-z_][a-z0-9_]*)"(?=,|$)', E'\\1\\2', 'g') ELSE c.line END, ', ' ORDER BY c.n)
              FROM unnest(p.proconfig) WITH ORDINALITY c (line, n)), 'body ' || md5(p.prosrc), p.probin, 'transition ' || (SELECT aggtransfn::regproc::text || ' ' || aggfinalfn::regproc::text FROM pg_aggregate g WHERE g.aggfnoid = p.oid))
           || (SELECT /*acl*/ FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee <> p.proowner),
       false, false, '', '', '', '', '', pg_get_userbyid(p.proowner)::text, ''
  FROM (SELECT p.oid, p.proowner, p.proname, p.prolang, p.proallargtypes, p.pronargs, p.pronargdefaults, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proleakproof, p.procost, p.prorows, p.proconfig, p.prosrc, p.probin, p.proacl,
               quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS name, regexp_replace(pg_get_function_identity_arguments(p.oid), '(^|, )IN ', E'\\1', 'g') AS identity FROM pg_proc p JOIN space n ON n.oid = p.pronamespace) p
 WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i' AND d.refclassid = 'pg_type'::regclass)
UNION ALL
-- A body in the form of the standard is a parse tree, and no text.
SELECT 'definition of function', p.name || '(' || regexp_replace(pg_get_function_identity_arguments(p.oid), '(^|, )IN ', E'\\1', 'g') || ')', E'\x01f' || substr(p.def, strpos(p.def, ' ' || p.name || '(') + length(' ' || p.name)) || E'\x02',
       false, false, '', '', '', '', '', pg_get_userbyid(p.proowner)::text, CASE WHEN p.def LIKE 'CREATE OR REPLACE PROCEDURE%' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END || quote_ident(p.proname)
  FROM (SELECT p.oid, p.proowner, p.proname, quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS name, pg_get_functiondef(p.oid) AS def FROM pg_proc p JOIN space n ON n.oid = p.pronamespace
         WHERE CASE WHEN p.prosrc = '' THEN to_jsonb(p)->>'prosqlbody' END IS NOT NULL) p
 WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
UNION ALL
SELECT 'type', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
       concat_ws(', ', 'owner ' || pg_get_userbyid(t.typowner), 'kind ' || t.typtype::text,
           'labels ' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
           CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
           'collate ' || (SELECT coll.name FROM coll JOIN pg_type b ON b.oid = t.typbasetype WHERE coll.oid = t.typcollation AND coll.oid <> b.typcollation), CASE WHEN t.typnotnull THEN 'not null' END, 'default ' || E'\x01s' || t.typdefault || E'\x02',
           (SELECT string_agg(quote_ident(o.conname) || ' CHECK (' || E'\x01d' || pg_get_expr(o.conbin, 0) || E'\x02)' || CASE WHEN o.convalidated THEN '' ELSE ' (not validated)' END, ', ' ORDER BY o.conname) FROM pg_constraint o WHERE o.contypid = t.oid AND o.contype = 'c'),
           (SELECT concat_ws(' ', 'of', format_type(r.rngsubtype, NULL), 'collate ' || (SELECT coll.name FROM coll JOIN pg_type b ON b.oid = r.rngsubtype WHERE coll.oid = r.rngcollation AND coll.oid <> b.typcollation),
                    'by ' || (SELECT quote_ident(op.nspname) || '.' || quote_ident(op.opcname) FROM op WHERE op.oid = r.rngsubopc), 'canonical ' || nullif(r.rngcanonical, 0)::regprocedure::text,
                    'difference ' || nullif(r.rngsubdiff, 0)::regprocedure::text) FROM pg_range r WHERE r.rngtypid = t.oid)),
       false, false, '', '', '', '', '', pg_get_userbyid(t.typowner)::text, CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) ELSE '' END
  FROM pg_type t JOIN space n ON n.oid = t.typnamespace
 -- What a range brings with it depends on the version.
 WHERE (t.typrelid = 0 AND t.typelem = 0) AND t.typtype <> 'm' AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
UNION ALL
SELECT 'extension', quote_ident(e.extname), 'version ' || e.extversion || ' in ' || quote_ident(n.nspname), true, false, '', '', '', '', '', '', ''
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL
SELECT 'event trigger', quote_ident(evtname), concat_ws(' ', evtevent, evtfoid::regproc::text, evtenabled, array_to_string(evttags, ', ')), false, false, '', '', '', '', '', '', ''
  FROM pg_event_trigger e WHERE evtname !~ '^!?twinspan_' AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_event_trigger'::regclass AND m.objid = e.oid)
UNION ALL
SELECT o.type, o.identity, CASE WHEN x.owner = 0 THEN '' ELSE 'owner ' || pg_get_userbyid(x.owner) END, false, false, '', '', '', '', '', '', ''
  -- An operator that another one's definition names and nobody has made is a shell; no dump has it.
  FROM (SELECT 'pg_operator'::regclass AS class, oid, oprowner AS owner FROM pg_operator WHERE oprcode <> 0 UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner FROM pg_opclass
        UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfowner FROM pg_opfamily UNION ALL SELECT 'pg_cast'::regclass, oid, 0 FROM pg_cast c
            -- Versions from 14 on make one from each range.
            WHERE NOT EXISTS (SELECT FROM pg_type r, pg_type m WHERE r.oid = c.castsource AND r.typtype = 'r' AND m.oid = c.casttarget AND m.typtype = 'm')
        UNION ALL SELECT 'pg_conversion'::regclass, oid, conowner FROM pg_conversion UNION ALL SELECT 'pg_collation'::regclass, oid, collowner FROM pg_collation
        UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgowner FROM pg_ts_config UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictowner FROM pg_ts_dict
        UNION ALL SELECT 'pg_ts_parser'::regclass, oid, 0 FROM pg_ts_parser UNION ALL SELECT 'pg_ts_template'::regclass, oid, 0 FROM pg_ts_template
        UNION ALL SELECT 'pg_am'::regclass, oid, 0 FROM pg_am
        UNION ALL SELECT 'pg_language'::regclass, oid, lanowner FROM pg_language UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner FROM pg_foreign_server
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner FROM pg_foreign_data_wrapper UNION ALL SELECT 'pg_transform'::regclass, oid, 0 FROM pg_transform) x
 CROSS JOIN LATERAL pg_identify_object(x.class, x.oid, 0) o
 WHERE x.oid >= 16384 AND o.identity IS NOT NULL AND coalesce(o.schema, '') NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND coalesce(o.schema, '') !~ '^pg_temp'
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = x.class AND m.objid = x.oid)
UNION ALL
SELECT 'default acl', o.identity, (SELECT /*acl*/ FROM aclexplode(d.defaclacl) a WHERE a.grantee <> d.defaclrole), false, false, '', '', '',
       json_build_object('of', concat(format('ALTER DEFAULT PRIVILEGES FOR ROLE %I', pg_get_userbyid(d.defaclrole)), ' IN SCHEMA ' || quote_ident(n.nspname)),
           'on', CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
           'has', (SELECT json_agg(g.is) FROM (SELECT json_build_object('to', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, 'grants', a.is_grantable,
                          'may', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)) AS is
                     FROM aclexplode(d.defaclacl) a WHERE a.privilege_type <> 'MAINTAIN' GROUP BY a.grantee, a.is_grantable ORDER BY a.grantee, a.is_grantable) g),
           'otherwise', (SELECT json_agg(g.is) FROM (SELECT json_build_object('to', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, 'grants', a.is_grantable,
                          'may', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)) AS is
                     FROM aclexplode(acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END, d.defaclrole)) a
                    WHERE d.defaclnamespace = 0 AND a.privilege_type <> 'MAINTAIN' GROUP BY a.grantee, a.is_grantable ORDER BY a.grantee, a.is_grantable) g))::text, '', '', ''
  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace CROSS JOIN LATERAL pg_identify_object('pg_default_acl'::regclass, d.oid, 0) o
 WHERE d.oid >= 16384 AND o.identity IS NOT NULL AND coalesce(n.nspname, '') NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND coalesce(n.nspname, '') !~ '^pg_temp'
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_default_acl'::regclass AND m.objid = d.oid)
UNION ALL
SELECT 'comment', o.type || ' ' || o.identity, d.description, false, false, '', '', '', '', '', '', ''
  FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) o
 WHERE d.objoid >= 16384 AND o.identity IS NOT NULL AND coalesce(o.schema, '') NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND coalesce(o.schema, '') !~ '^pg_(toast|temp)' AND o.identity !~ '^"?!?twinspan'
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = d.classoid AND m.objid = d.objoid)
   AND NOT EXISTS (SELECT FROM pg_index i WHERE d.classoid = 'pg_class'::regclass AND i.indexrelid = d.objoid AND NOT (i.indisvalid AND i.indisready))
   AND d.classoid NOT IN ('pg_extension'::regclass, 'pg_largeobject'::regclass)
UNION ALL
SELECT 'security label', s.provider || ' on ' || o.type || ' ' || o.identity, s.label, false, false, '', '', '', '', '', '', ''
  FROM pg_seclabel s CROSS JOIN LATERAL pg_identify_object(s.classoid, s.objoid, s.objsubid) o
 WHERE o.identity IS NOT NULL AND coalesce(o.schema, '') NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND o.identity !~ '^"?!?twinspan'
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = s.classoid AND m.objid = s.objoid)
   AND s.classoid NOT IN ('pg_largeobject'::regclass, 'pg_publication'::regclass, 'pg_subscription'::regclass, 'pg_event_trigger'::regclass)
UNION ALL
-- Options that the link does not know, which are told and not compared.
SELECT 'unknown option', o.name, o.list, false, false, '', '', '', '', '', '', ''
  FROM (SELECT split_part(o, '=', 1) AS name, 'tables' AS list FROM rel CROSS JOIN unnest(reloptions) o WHERE relkind NOT IN ('i', 'I') AND split_part(o, '=', 1) <> ALL (/*options of tables*/)
        UNION SELECT split_part(o, '=', 1), 'indexes' FROM rel CROSS JOIN unnest(reloptions) o WHERE relkind IN ('i', 'I') AND split_part(o, '=', 1) <> ALL (/*options of indexes*/)
        UNION SELECT split_part(o, '=', 1), 'columns' FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 CROSS JOIN unnest(a.attoptions) o WHERE relkind NOT IN ('i', 'I') AND split_part(o, '=', 1) <> ALL (/*options of columns*/)
        UNION SELECT split_part(o, '=', 1), 'columns of indexes' FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 CROSS JOIN unnest(a.attoptions) o WHERE relkind IN ('i', 'I') AND split_part(o, '=', 1) <> ALL (/*options of columns of indexes*/)) o
