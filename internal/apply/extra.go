package apply

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// takeBig takes a message that is not held in memory. Everything before it is
// applied first, then its change alone, in a piece of its own whose values go
// from the message to the socket.
func (e *engine) takeBig(ctx context.Context, big Big) error {
	msg := big.Bytes()
	m, err := e.decoder.Decode(msg)
	if err != nil {
		return corrupt("a message that cannot be read: %v", err)
	}
	switch m.Type {
	case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
	case pgoutput.TypeMessage:
		return nil
	default:
		return corrupt("a message of type %q and %d bytes", byte(m.Type), len(msg))
	}
	r, c, err := e.prepare(ctx, m)
	if err != nil || r == nil {
		return err
	}
	if r.role == signals {
		return e.signal(ctx, r, c)
	}
	if err := e.drain(ctx); err != nil {
		return err
	}
	e.s.large = func(rest []byte) {
		// rest is a slice of msg that reaches as far as msg does in memory, so
		// capacities tell where it lies.
		big.Done(cap(msg) - cap(rest))
	}
	defer func() { e.s.large = nil }()
	// It is written by itself whatever its table's order, and settled here, for its
	// bytes go with big.
	order := r.Table.Order
	r.Table.Order = max(order, group.Strict)
	defer func() { r.Table.Order = order }()
	if !e.tx.any {
		e.tx.any = true
		e.tx.first = 0
		e.current.txs = append(e.current.txs, e.tx)
	}
	e.current.plan.Append(c)
	if err := e.piece(ctx); err != nil {
		return err
	}
	return e.settle(ctx)
}

// drain writes everything before this place: whole transactions are committed,
// the changes of the open one are in the open target transaction.
func (e *engine) drain(ctx context.Context) error {
	if err := e.finish(ctx); err != nil {
		return err
	}
	if err := e.piece(ctx); err != nil {
		return err
	}
	return e.settle(ctx)
}

// signal takes a row inserted into twinspan.signal.
func (e *engine) signal(ctx context.Context, r *relation, c group.Change) error {
	var kind string
	var payload []byte
	for i, v := range c.New.Columns(nil) {
		switch r.columns[i].name {
		case "kind":
			kind = string(v.Value)
		case "payload":
			payload = bytes.Clone(v.Value)
			if v.Kind == pgoutput.Binary && len(payload) > 0 {
				payload = payload[1:] // jsonb_send puts a version before the text
			}
		}
	}
	if kind == "truncate" {
		return e.truncateSignal(ctx, payload)
	}
	if e.a.OnSignal == nil {
		return nil
	}
	if err := e.drain(ctx); err != nil {
		return err
	}
	return e.a.OnSignal(ctx, kind, payload)
}

// truncateSignal applies a TRUNCATE of a primary that cannot put it in the stream.
func (e *engine) truncateSignal(ctx context.Context, payload []byte) error {
	var p struct {
		Schema  string `json:"schema"`
		Table   string `json:"table"`
		Cascade bool   `json:"cascade"`
		Restart bool   `json:"restart"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return corrupt("a truncate signal that cannot be read: %v", err)
	}
	name := sqlname.Table{Schema: p.Schema, Name: p.Table}
	if e.tx.final < e.a.SkipBefore[name] {
		return nil
	}
	r, err := e.named(ctx, name)
	if err != nil {
		return err
	}
	set := &group.TruncateSet{Tables: []*group.Table{&r.Table}, Cascade: p.Cascade, RestartIdentity: p.Restart}
	return e.add(ctx, group.Change{Op: group.Truncate, Truncate: set})
}

// named makes a relation of a table that the stream names but does not describe.
func (e *engine) named(ctx context.Context, name sqlname.Table) (*relation, error) {
	for _, r := range e.relations {
		if r.name == name && r.resolved {
			return r, nil
		}
	}
	if err := e.settle(ctx); err != nil {
		return nil, err
	}
	t, err := e.look(ctx, name)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, problem.New(problem.Diverged, "schema_differs", "table %s is missing on the secondary", name).On(name.String()).WithHint(schemaHint)
	}
	r := &relation{name: name, statements: map[string]*statement{}}
	if t.kind == "r" {
		r.only = "ONLY "
	}
	e.byTable[&r.Table] = r
	return r, nil
}
