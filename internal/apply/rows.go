package apply

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/rowtext"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// reading is a table whose rows are said by signals (capture's rows.sql).
type reading struct {
	relation uint32 // by which its messages go
	columns  int
	skip     bool   // the table holds later rows already
	part     []byte // the beginning of rows that come in pieces
	// back brings back constraints that are NOT VALID: those of the rows that are older need not satisfy them.
	back []string
}

// readRelation is the first number of relations that stand for tables whose rows are
// said. The server counts its own upwards, and begins again before these.
const readRelation = 0xffff0000

// rowsSignal takes signals with rows: rows_begin empties the table, and rows are taken as if
// the stream held an INSERT for each.
func (e *engine) rowsSignal(ctx context.Context, kind string, payload []byte) error {
	var p struct {
		Schema, Table, Rows []byte
		More                bool // what comes next belongs to the same rows
		Columns             []struct {
			Name []byte
			Type uint32
		}
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return corrupt("a %s signal that cannot be read: %v", kind, err)
	}
	name := sqlname.Table{Schema: string(p.Schema), Name: string(p.Table)}
	switch kind {
	case "rows_begin":
		e.reading = &reading{relation: readRelation + e.readings%0xffff, columns: len(p.Columns), skip: e.tx.skip || e.tx.final < e.a.SkipBefore[name]}
		e.readings++
		if e.reading.skip {
			return nil
		}
		if err := e.empty(ctx, name); err != nil {
			return err
		}
		if err := e.loosen(ctx, name); err != nil {
			return err
		}
		msg := binary.BigEndian.AppendUint32([]byte{byte(pgoutput.TypeRelation)}, e.reading.relation)
		msg = append(append(append(append(msg, p.Schema...), 0), p.Table...), 0, 'n')
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(p.Columns)))
		for _, c := range p.Columns {
			msg = append(append(append(msg, 0), c.Name...), 0)
			msg = binary.BigEndian.AppendUint32(msg, c.Type)
			msg = binary.BigEndian.AppendUint32(msg, 0xffffffff)
		}
		return e.message(ctx, msg)
	case "rows_end":
		if e.reading != nil && len(e.reading.part) > 0 {
			return corrupt("rows without their end")
		}
		r := e.reading
		e.reading = nil
		// What follows names the table by its own number: it must not overtake these.
		if err := e.drain(ctx); err != nil || r == nil || len(r.back) == 0 {
			return err
		}
		return e.script(ctx, &Script{Statements: r.back, Tag: tagResend, Subject: name.String()})
	}
	if e.reading == nil {
		return corrupt("rows of no table")
	}
	if e.reading.skip {
		return nil
	}
	if p.More || len(e.reading.part) > 0 {
		e.reading.part = append(e.reading.part, p.Rows...)
		if p.More {
			return nil
		}
		p.Rows, e.reading.part = e.reading.part, nil
	}
	var fields [][]byte
	for rest := p.Rows; len(rest) > 0; {
		var ok bool
		if fields, rest, ok = rowtext.Next(fields[:0], rest); ok && e.reading.columns == 0 {
			fields = fields[:0]
		}
		if !ok || len(fields) != e.reading.columns {
			return corrupt("a row that cannot be read")
		}
		// Changes keep their message until they are written: each has its own.
		msg := binary.BigEndian.AppendUint32(append(make([]byte, 0, 256), byte(pgoutput.TypeInsert)), e.reading.relation)
		msg = binary.BigEndian.AppendUint16(append(msg, 'N'), uint16(len(fields)))
		for _, f := range fields {
			if f == nil {
				msg = append(msg, pgoutput.Null)
				continue
			}
			msg = binary.BigEndian.AppendUint32(append(msg, pgoutput.Text), uint32(len(f)))
			msg = append(msg, f...)
		}
		if err := e.message(ctx, msg); err != nil {
			return err
		}
	}
	return nil
}

// looseSQL lists the constraints of a table that are NOT VALID, those of its ancestors too, for they come
// from there, and of its columns' domains: how each is dropped and made again. The first to be dropped comes first.
const looseSQL = `WITH RECURSIVE up (oid, level) AS (
	SELECT pg_catalog.to_regclass($1)::pg_catalog.oid, 0 UNION SELECT i.inhparent, up.level + 1 FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid),
	kind (oid) AS (
	SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
	UNION SELECT x.oid FROM kind k JOIN pg_catalog.pg_type t ON t.oid = k.oid CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) x (oid) WHERE x.oid >= 16384)
	SELECT pg_catalog.concat('ALTER ', l.what, ' DROP CONSTRAINT IF EXISTS ', l.name), pg_catalog.concat('ALTER ', l.what, ' ADD CONSTRAINT ', l.name, ' ', pg_catalog.pg_get_constraintdef(l.oid)),
	       coalesce('COMMENT ON CONSTRAINT ' || l.name || ' ON ' || l.place || pg_catalog.format(' IS %L', d.description), '')
	  FROM (SELECT c.oid, pg_catalog.quote_ident(c.conname) AS name, pg_catalog.format('TABLE %I.%I', n.nspname, r.relname) AS what, pg_catalog.format('%I.%I', n.nspname, r.relname) AS place, up.level
	          FROM (SELECT oid, max(level) AS level FROM up GROUP BY oid) up JOIN pg_catalog.pg_constraint c ON c.conrelid = up.oid
	          JOIN pg_catalog.pg_class r ON r.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
	         WHERE c.contype IN ('c', 'n') AND NOT c.convalidated AND c.conislocal AND coalesce(pg_catalog.to_jsonb(c)->>'conenforced', 'true') = 'true'
	           -- A NOT NULL is inherited whatever its name.
	           AND (c.contype = 'n' OR EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conrelid = pg_catalog.to_regclass($1) AND o.conname = c.conname))
	        UNION ALL
	        SELECT c.oid, pg_catalog.quote_ident(c.conname), pg_catalog.format('DOMAIN %I.%I', n.nspname, t.typname), pg_catalog.format('DOMAIN %I.%I', n.nspname, t.typname), 0
	          FROM kind k JOIN pg_catalog.pg_constraint c ON c.contypid = k.oid JOIN pg_catalog.pg_type t ON t.oid = k.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
	         WHERE NOT c.convalidated) l
	  LEFT JOIN pg_catalog.pg_description d ON d.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objoid = l.oid
	 ORDER BY l.level DESC, l.oid`

// loosen takes from a table what is NOT VALID until its rows are there: the primary has rows that do not
// satisfy it, and nobody can write such.
func (e *engine) loosen(ctx context.Context, name sqlname.Table) error {
	rows, err := e.ask(ctx, looseSQL, name.SQL())
	if err != nil || len(rows) == 0 {
		return err
	}
	var drops, comments []string
	for _, r := range rows {
		drops = append(drops, string(r[0]))
		e.reading.back = append([]string{string(r[1])}, e.reading.back...)
		if comment := string(r[2]); comment != "" {
			comments = append(comments, comment)
		}
	}
	e.reading.back = append(e.reading.back, comments...)
	return e.script(ctx, &Script{Statements: drops, Tag: tagResend, Subject: name.String()})
}

// unreferredSQL says whether a table is there to which no foreign key of another one refers.
const unreferredSQL = `SELECT pg_catalog.to_regclass($1) IS NOT NULL AND NOT EXISTS (
	SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.confrelid = pg_catalog.to_regclass($1) AND k.conrelid <> k.confrelid)`

// emptyAhead returns what takes the rows out of the tables whose rows the stream brings behind a script. A script that
// finds none computes none: what a USING clause or a default calls would have its effects here again, on rows of other tables, too. A table
// that others refer to keeps its rows until then, for the script may have the server look for what they refer to.
//
// The statements are part of the script: where it waits for a lock, nothing is held meanwhile. So they may be run many times, and a TRUNCATE of all
// has their locks before it does anything. The script asks for locks that are as strong.
func (e *engine) emptyAhead(ctx context.Context, script *Script) ([]string, error) {
	var tables []string
	var names []sqlname.Table
	fenced := false
	for _, name := range script.Anew {
		if e.tx.skip || e.tx.final < e.a.SkipBefore[name] {
			continue
		}
		rows, err := e.ask(ctx, unreferredSQL, name.SQL())
		if err != nil {
			return nil, err
		}
		if len(rows) != 1 || !truth(rows[0][0]) {
			continue
		}
		r, err := e.named(ctx, name)
		if err != nil {
			return nil, err
		}
		tables, names, fenced = append(tables, r.sql()), append(names, name), fenced || r.fence != nil
	}
	switch sql := "TRUNCATE " + strings.Join(tables, ", "); {
	case len(tables) == 0:
		return nil, nil
	case fenced: // see truncateWith
		own := e.fences.own.runner
		return slices.Concat(own.Make(), own.Run(sql, names...), []string{rights.Check}), nil
	default:
		return []string{sql}, nil
	}
}

// empty takes all rows out of a table. TRUNCATE, which is quicker, is not for tables that
// foreign keys refer to.
func (e *engine) empty(ctx context.Context, name sqlname.Table) error {
	if err := e.drain(ctx); err != nil {
		return err
	}
	r, err := e.named(ctx, name)
	if err != nil {
		return err
	}
	return e.script(ctx, &Script{Statements: r.emptying(), Tag: tagResend, Subject: name.String()})
}
