package apply

import (
	"context"
	"encoding/binary"
	"encoding/json"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/rowtext"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// reading is a table whose rows are said by signals (capture's rows.sql).
type reading struct {
	relation uint32 // by which its messages go
	columns  int
	skip     bool   // the table holds later rows already
	part     []byte // the beginning of rows that come in pieces
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
		e.reading = nil
		// What follows names the table by its own number: it must not overtake these.
		return e.drain(ctx)
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
