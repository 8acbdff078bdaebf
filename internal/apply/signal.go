package apply

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Signal is something that the primary says at a place of its stream.
type Signal struct {
	Kind    string
	Payload []byte
	At      lsn.LSN // where its transaction's commit record begins
	Place   int     // among the signals of its transaction, from 1
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
	switch kind {
	case "truncate":
		return e.truncateSignal(ctx, payload)
	case "resend", "resent":
		return e.resendSignal(ctx, kind, payload)
	case "rows_begin", "rows", "rows_end":
		return e.rowsSignal(ctx, kind, payload)
	}
	if e.a.OnSignal == nil {
		return nil
	}
	if err := e.drain(ctx); err != nil {
		return err
	}
	e.tx.signals++
	script, err := e.a.OnSignal(ctx, Signal{Kind: kind, Payload: payload, At: e.tx.final, Place: e.tx.signals})
	if err != nil || script == nil || len(script.Statements) == 0 {
		return err
	}
	return e.script(ctx, script)
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
	r := &relation{name: name, oid: t.oid, statements: map[string]*statement{}}
	if t.kind == "r" {
		r.only = "ONLY "
	}
	if err := e.protect(ctx, r, t.oid); err != nil {
		return nil, err
	}
	e.byTable[&r.Table] = r
	return r, nil
}
