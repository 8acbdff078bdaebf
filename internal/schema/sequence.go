package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Sequence is the state of a sequence.
type Sequence struct {
	Name     sqlname.Table `json:"name"`
	Last     int64         `json:"last"`
	IsCalled bool          `json:"isCalled"` // whether Last has been handed out
}

// sequencesAtOnce bounds the text of one statement over many sequences.
const sequencesAtOnce = 500

// Sequences reads every sequence of the database as it is now: sequences know no
// snapshots. A sequence that is dropped meanwhile is left out.
func (s *Source) Sequences(ctx context.Context) ([]Sequence, error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Name + "/sequences", Settings: map[string]string{
		"client_encoding": "UTF8", "lock_timeout": fmt.Sprint(lockTimeout.Milliseconds()),
	}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for try := 1; ; try++ {
		sequences, err := readSequences(ctx, conn)
		if state := pg.SQLState(err); (state != "42P01" && state != "XX000") || try == 5 {
			return sequences, pg.Classify(err, "read the sequences")
		}
	}
}

func readSequences(ctx context.Context, conn *pgx.Conn) ([]Sequence, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname, c.relname
		  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
		 ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sqlname.Table])
	if err != nil {
		return nil, err
	}
	sequences := make([]Sequence, 0, len(names))
	for len(names) > 0 {
		part := names[:min(len(names), sequencesAtOnce)]
		names = names[len(part):]
		var sql strings.Builder
		for i, name := range part {
			if i > 0 {
				sql.WriteString(" UNION ALL ")
			}
			fmt.Fprintf(&sql, "SELECT %d, last_value, is_called FROM %s", i, name.SQL())
		}
		rows, err := conn.Query(ctx, sql.String())
		if err != nil {
			return nil, err
		}
		var i int
		var state Sequence
		if _, err := pgx.ForEachRow(rows, []any{&i, &state.Last, &state.IsCalled}, func() error {
			state.Name = part[i]
			sequences = append(sequences, state)
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return sequences, nil
}

// SetSequences gives the target's sequences the state of the primary's. One that
// the target lacks is an error: the schemas differ.
func (t *Target) SetSequences(ctx context.Context, sequences []Sequence) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for len(sequences) > 0 {
		part := sequences[:min(len(sequences), sequencesAtOnce)]
		sequences = sequences[len(part):]
		batch := &pgx.Batch{}
		for _, s := range part {
			batch.Queue(`SELECT pg_catalog.setval($1::text::regclass, $2, $3)`, s.Name.SQL(), s.Last, s.IsCalled)
		}
		err := conn.SendBatch(ctx, batch).Close()
		switch state := pg.SQLState(err); {
		case state == "42P01" || state == "3F000":
			return missingSequence(ctx, conn, part)
		case err != nil:
			return pg.Classify(err, "set the sequences")
		}
	}
	return nil
}

func missingSequence(ctx context.Context, conn *pgx.Conn, sequences []Sequence) error {
	for _, s := range sequences {
		var there bool
		if err := conn.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, s.Name.SQL()).Scan(&there); err != nil {
			return pg.Classify(err, "look for a sequence")
		}
		if !there {
			return problem.New(problem.Conflict, "schema_changed_during_seeding", "the sequence %s was made on the primary after the schema was copied", s.Name).
				On(s.Name.String()).WithHint("delete the link and create it again")
		}
	}
	return problem.Wrap(errors.New("every sequence is there now"), problem.Transient, "sequence_missing", "set the sequences")
}
