package meet

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/side"
)

const (
	// sequencePatience is how long a sequence may be behind before it is said: what
	// was handed out a moment ago is on its way.
	sequencePatience = 5 * time.Second

	// lookAgain is the pause between two looks at sequences.
	lookAgain = 250 * time.Millisecond
)

// The states of a sequence.
const (
	SequenceBehind = "behind"
	SequenceAhead  = "ahead"
)

// tooFarAhead is how many times the lead a sequence is kept by may be exceeded
// before it is said to be ahead: the lead follows rates that are over.
const tooFarAhead = 16

// SequencesApart compares the sequences as they are now, for a while where some are
// behind: what was handed out a moment ago is on its way.
func (m *Secondary) SequencesApart(ctx context.Context, reference side.Reference) (list []api.SequenceDifference, behind []sequence.Sequence, err error) {
	for end := time.Now().Add(sequencePatience); ; {
		// The secondary's first: then the primary's can only have gone on.
		there, err := readSequences(ctx, m.side)
		if err != nil {
			return nil, nil, err
		}
		here, err := ReadAt[[]sequence.Sequence](ctx, NewRemote(m.side, reference, ""), ReadRequest{Sequences: true})
		if err != nil {
			return nil, nil, err
		}
		list, behind = compareSequences(here, there)
		if len(behind) == 0 || time.Now().After(end) {
			return list, behind, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(lookAgain):
		}
	}
}

// EndOfLog is the end of a primary's log.
func EndOfLog(ctx context.Context, conn *pgx.Conn) (end lsn.LSN, err error) {
	err = conn.QueryRow(ctx, `SELECT pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&end)
	return end, pg.Classify(err, "read the end of the log")
}

// compareSequences finds those that stand where they should not, and what the
// ones that are behind should be. One that a side lacks is the schema's business.
func compareSequences(primary, secondary []sequence.Sequence) (list []api.SequenceDifference, behind []sequence.Sequence) {
	there := map[string]sequence.Sequence{}
	for _, s := range secondary {
		there[s.Name.SQL()] = s
	}
	for _, a := range primary {
		b, have := there[a.Name.SQL()]
		if !have || a.Left(a.State) == 0 {
			continue
		}
		lead := a.Lead(a.State, 0, 0)
		n, ahead := a.Calls(a.State, b.State)
		d := api.SequenceDifference{Name: a.Name.String(), Primary: a.Last, Secondary: b.Last}
		switch {
		case !ahead:
			d.State = SequenceBehind
			b.State = a.Ahead(a.State, lead)
			behind = append(behind, b)
		case n/tooFarAhead > max(lead, 1<<16):
			d.State = SequenceAhead
		default:
			continue
		}
		list = append(list, d)
	}
	return list, behind
}
