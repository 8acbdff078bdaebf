package apply

import (
	"context"
)

// local says whether a command changes only tables that it locks or that have columns
// of users' types, so that what is known of others stays right. Commands on operators,
// extensions and schemas reach tables that they do not touch; so may what falls
// with a function or a type.
func local(tag string) bool {
	switch tag {
	case "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "ALTER TABLE", "DROP TABLE", "CREATE INDEX", "ALTER INDEX", "DROP INDEX",
		"CREATE TRIGGER", "ALTER TRIGGER", "DROP TRIGGER", "CREATE RULE", "ALTER RULE", "DROP RULE", "CREATE POLICY", "ALTER POLICY", "DROP POLICY",
		"CREATE VIEW", "ALTER VIEW", "DROP VIEW", "CREATE MATERIALIZED VIEW", "ALTER MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW", "DROP MATERIALIZED VIEW",
		"CREATE SEQUENCE", "ALTER SEQUENCE", "DROP SEQUENCE", "CREATE STATISTICS", "ALTER STATISTICS", "DROP STATISTICS",
		"CREATE FUNCTION", "ALTER FUNCTION", "CREATE PROCEDURE", "ALTER PROCEDURE", "CREATE SCHEMA", "CREATE TYPE", "ALTER TYPE", "CREATE DOMAIN", "ALTER DOMAIN",
		"COMMENT", "SECURITY LABEL", "GRANT", "REVOKE", "ALTER DEFAULT PRIVILEGES", tagResend:
		return true
	}
	return false
}

// lockedSQL lists the relations that the transaction holds more of than changing
// rows takes.
const lockedSQL = `SELECT DISTINCT relation FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND granted
	AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')`

// forget makes the relations be looked up anew that the script may have changed, and
// their statements be prepared anew. A command has locked what it changes until its
// transaction ends. It runs within that transaction.
func (e *engine) forget(ctx context.Context, script *Script) error {
	if !local(script.Tag) {
		e.forgetAll(script.Renamed)
		return nil
	}
	rows, err := e.ask(ctx, lockedSQL)
	if err != nil {
		return err
	}
	locked := map[uint32]bool{}
	for _, r := range rows {
		locked[number(r[0])] = true
	}
	e.lastRelation = nil
	kept := map[*relation]bool{}
	granted := script.Tag == "GRANT" || script.Tag == "REVOKE" // which lock no relation
	for id, r := range e.relations {
		if r.resolved && !(granted && r.fence != nil) && !locked[r.oid] && !locked[r.rootOID] && !r.hasOwnTypes() {
			kept[r] = true
		} else {
			e.relations[id] = r.fresh()
		}
	}
	for t, r := range e.byTable {
		if !kept[r] {
			delete(e.byTable, t)
			delete(e.penalised, r)
		}
	}
	return nil
}

// forgetAll makes every relation be looked up anew. renamed are schemas that have
// another name now.
func (e *engine) forgetAll(renamed map[string]string) {
	e.s.giveUp()
	clear(e.byTable)
	clear(e.penalised)
	e.lastRelation = nil
	for id, r := range e.relations {
		next := r.fresh()
		if to, ok := renamed[next.name.Schema]; ok {
			next.name.Schema = to
		}
		e.relations[id] = next
	}
}

// hasOwnTypes says whether a column's type was made by a user: the row type of a
// table changes with that table.
func (r *relation) hasOwnTypes() bool {
	for i := range r.columns {
		if r.columns[i].typeID >= firstNormalOID {
			return true
		}
	}
	return false
}

// fresh is the relation as it was described, before it was looked up.
func (r *relation) fresh() *relation {
	next := &relation{
		role: r.role, name: r.name, identity: r.identity, message: r.message, id: r.id, modifiers: r.modifiers, gone: r.gone,
		skipBefore: r.skipBefore, repair: r.repair, statements: map[string]*statement{},
	}
	for _, c := range r.columns {
		next.columns = append(next.columns, column{name: c.name, sourceID: c.sourceID, inKey: c.inKey})
	}
	return next
}
