package lost

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

// reader takes records apart and hands what they say to the writer.
type reader struct {
	from   io.Reader
	spill  func(ctx context.Context, from io.Reader, length int) (Big, error)
	writer *writer
	end    lsn.LSN // where to stop

	decoder pgoutput.Decoder
	open    bool // inside a transaction
	resent  map[string]bool
}

// run returns nil at the end of the log, when all before it is recorded.
func (r *reader) run(ctx context.Context) error {
	in := bufio.NewReaderSize(r.from, 256<<10)
	r.resent = map[string]bool{}
	var buffer []byte
	for {
		var header [wire.RecordHeader]byte
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return r.ended(ctx, err)
		}
		length := int(binary.BigEndian.Uint32(header[:]))
		if length == 0 || length > wire.MaxRecord {
			return corrupt("a record of %d bytes", length)
		}
		done, err := r.record(ctx, in, length, &buffer)
		if err == nil && done {
			return r.writer.complete(ctx, r.end)
		}
		if err != nil {
			return r.ended(ctx, err)
		}
	}
}

// ended makes a problem of what ended the reading.
func (r *reader) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return problem.New(problem.Transient, "stream_ended", "the server ended the stream")
	}
	return err
}

// record reads a record into the buffer, or a file, and takes it.
func (r *reader) record(ctx context.Context, in io.Reader, length int, buffer *[]byte) (done bool, err error) {
	if length >= bigMessage {
		big, err := r.spill(ctx, in, length)
		if err != nil {
			return false, err
		}
		defer big.Close()
		return false, r.message(ctx, big.Bytes())
	}
	if cap(*buffer) < length {
		*buffer = make([]byte, length, max(length, 64<<10))
	}
	b := (*buffer)[:length]
	if _, err := io.ReadFull(in, b); err != nil {
		return false, err
	}
	reached, ok, err := wire.ParseReached(b)
	if err != nil {
		return false, err
	}
	if ok {
		return !r.open && reached.Position >= r.end, nil
	}
	if b[0] == byte(pgoutput.TypeBegin) {
		// What commits behind the end is nobody's but the agent's own.
		m, err := r.decode(b)
		if err != nil || m.Begin.Final >= r.end {
			return err == nil, err
		}
		return false, r.begin(m)
	}
	return false, r.message(ctx, b)
}

func (r *reader) decode(b []byte) (*pgoutput.Message, error) {
	m, err := r.decoder.Decode(b)
	if err != nil {
		return nil, corrupt("a message that cannot be read: %v", err)
	}
	return m, nil
}

func (r *reader) begin(m *pgoutput.Message) error {
	if r.open {
		return corrupt("a transaction inside another")
	}
	r.open = true
	r.writer.beginTransaction(m.Begin)
	return nil
}

func (r *reader) message(ctx context.Context, b []byte) error {
	m, err := r.decode(b)
	if err != nil {
		return err
	}
	switch m.Type {
	case pgoutput.TypeRelation:
		return r.writer.describe(ctx, &m.Relation)
	case pgoutput.TypeType, pgoutput.TypeOrigin, pgoutput.TypeMessage:
		return nil
	}
	if !r.open {
		return corrupt("a change outside of a transaction")
	}
	switch m.Type {
	case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
		return r.change(ctx, m)
	case pgoutput.TypeTruncate:
		return r.truncate(ctx, &m.Truncate)
	case pgoutput.TypeCommit:
		r.open = false
		clear(r.resent)
		return r.writer.commitTransaction(ctx, m.Commit)
	}
	return corrupt("a message of type %q", byte(m.Type))
}

func (r *reader) change(ctx context.Context, m *pgoutput.Message) error {
	t := r.writer.tables[m.Change.Relation]
	if t == nil {
		return corrupt("a change of a table that was not described")
	}
	if t.signals {
		if m.Type != pgoutput.TypeInsert {
			return nil // the primary removes its signals at once
		}
		return r.signal(ctx, t, &m.Change)
	}
	if m.Change.New.Len > len(t.columns) || m.Change.Old.Len > len(t.columns) {
		return corrupt("a row with more columns than described")
	}
	if r.resent[t.full()] {
		return nil // a row that is as it was, sent for the sake of what a rewrite gave it
	}
	kind := Insert
	switch m.Type {
	case pgoutput.TypeUpdate:
		kind = Update
	case pgoutput.TypeDelete:
		kind = Delete
	}
	return r.writer.change(ctx, kind, t, &m.Change)
}

func (r *reader) truncate(ctx context.Context, m *pgoutput.Truncate) error {
	for _, id := range m.Relations {
		t := r.writer.tables[id]
		if t == nil {
			continue // of the schema twinspan, of which nothing is sent
		}
		if t.signals {
			continue
		}
		if err := r.writer.note(ctx, Truncate, t, truncateOptions(m.Cascade, m.RestartIdentity)); err != nil {
			return err
		}
	}
	return nil
}

func truncateOptions(cascade, restart bool) string {
	switch {
	case cascade && restart:
		return "RESTART IDENTITY CASCADE"
	case cascade:
		return "CASCADE"
	case restart:
		return "RESTART IDENTITY"
	}
	return ""
}

// signal takes a row of twinspan.signal: what the former primary said to its twin.
func (r *reader) signal(ctx context.Context, t *table, c *pgoutput.Change) error {
	var kind, payload string
	for i, v := range c.New.Columns(nil) {
		switch t.columns[i] {
		case "kind":
			kind = string(v.Value)
		case "payload":
			payload = string(v.Value)
		}
	}
	switch kind {
	case "ddl":
		return r.writer.note(ctx, Schema, nil, payload)
	case "resend", "resent", "rows_begin":
		var p struct{ Schema, Table []byte }
		if err := json.Unmarshal([]byte(payload), &p); err != nil {
			return corrupt("a signal that cannot be read: %v", err)
		}
		known, err := r.writer.named(ctx, string(p.Schema), string(p.Table))
		if err != nil {
			return err
		}
		if kind == "resent" {
			delete(r.resent, known.full())
			return nil
		}
		r.resent[known.full()] = kind == "resend"
		return r.writer.note(ctx, Rewrite, known, "")
	case "truncate":
		var p struct {
			Schema, Table    string
			Cascade, Restart bool
		}
		if err := json.Unmarshal([]byte(payload), &p); err != nil {
			return corrupt("a signal that cannot be read: %v", err)
		}
		known, err := r.writer.named(ctx, p.Schema, p.Table)
		if err != nil {
			return err
		}
		return r.writer.note(ctx, Truncate, known, truncateOptions(p.Cascade, p.Restart))
	}
	return nil
}

func corrupt(text string, args ...any) error {
	return problem.New(problem.Internal, "stream_corrupt", "the slot holds "+text, args...)
}
