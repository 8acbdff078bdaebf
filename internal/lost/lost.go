// Package lost keeps what a former primary had committed and its twin never got
// before the twin took over by force: the slot of the link still holds it. The
// Collector reads it into the database where it was committed; Page and Redo
// show it to people; Plan says what of it a rejoin has to mend.
package lost

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Parting names a forced failover that left this side behind.
type Parting struct {
	Link   string  // the link's id
	Epoch  int64   // that the failover began
	Parted lsn.LSN // in this side's log: everything that committed before is on the other side, too
}

// Source reads the slot of the former primary.
type Source interface {
	// Read writes the records (package wire) of everything that committed at the
	// position or behind it, as text in the encoding, until ctx ends, and leaves the
	// slot where it is. A problem of kind Diverged says that the slot cannot give it.
	Read(ctx context.Context, from lsn.LSN, encoding string, w io.Writer) error
}

// Big is a message that is not held in memory but, say, in a mapped file.
type Big interface {
	Bytes() []byte // readable until Close
	Close() error
}

// Kind is what a change did.
type Kind string

// The kinds.
const (
	Insert   Kind = "insert"
	Update   Kind = "update"
	Delete   Kind = "delete"
	Truncate Kind = "truncate"
	Schema   Kind = "schema"  // a schema change; the detail is its signal
	Rewrite  Kind = "rewrite" // every row of a table got new values by a schema change
)

// The marks of values.
const (
	markValue     = 'v'
	markNull      = 'n'
	markUnchanged = 'u' // left in TOAST by an update, and so not told
	markUnknown   = '-' // of an old row of which only the key is told
	markLong      = 'l' // in twinspan.lost_value
)

// Summary is what is known of a parting.
type Summary struct {
	Epoch        int64
	Parted       lsn.LSN
	ReadTo       lsn.LSN // what committed before it is recorded
	Complete     bool    // everything is recorded
	Mended       bool    // a rejoin has brought the rows in line
	Discarded    bool
	Problem      *problem.Error // why nothing could be read
	Transactions int64
	Changes      int64
	First, Last  time.Time // when the first and the last transaction committed
	Tables       []TableSummary
}

// TableSummary counts what was lost of a table.
type TableSummary struct {
	Table     string
	Inserts   int64
	Updates   int64
	Deletes   int64
	Truncates int64
	Rewrites  int64
}

// Summaries describes every parting of the link that this database has, the
// oldest first.
func Summaries(ctx context.Context, q catalog.Querier, link string) ([]Summary, error) {
	rows, err := q.Query(ctx, `SELECT l.epoch, l.parted::text, l.read_to::text, l.complete, l.mended, l.discarded, l.problem,
			count(t.number), coalesce(sum(t.changes), 0), min(t.at), max(t.at)
		FROM twinspan.lost l LEFT JOIN twinspan.lost_transaction t USING (link, epoch)
		WHERE l.link = $1::text::uuid GROUP BY l.link, l.epoch ORDER BY l.epoch`, link)
	if err != nil {
		return nil, pg.Classify(err, "read what was lost")
	}
	list, err := pgx.CollectRows(rows, scanSummary)
	if err != nil {
		return nil, pg.Classify(err, "read what was lost")
	}
	for i := range list {
		if list[i].Tables, err = tableSummaries(ctx, q, link, list[i].Epoch); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func scanSummary(row pgx.CollectableRow) (s Summary, err error) {
	var trouble []byte
	var first, last *time.Time
	err = row.Scan(&s.Epoch, &s.Parted, &s.ReadTo, &s.Complete, &s.Mended, &s.Discarded, &trouble, &s.Transactions, &s.Changes, &first, &last)
	if err != nil {
		return s, err
	}
	if first != nil {
		s.First, s.Last = first.UTC(), last.UTC()
	}
	if trouble != nil {
		var p stored
		if err := json.Unmarshal(trouble, &p); err != nil {
			return s, err
		}
		s.Problem = &problem.Error{Kind: p.Kind, Code: p.Code, Subject: p.Subject, Text: p.Text, Hint: p.Hint}
	}
	return s, nil
}

// stored is the form in which a problem lies in the database.
type stored struct {
	Kind    problem.Kind `json:"kind"`
	Code    string       `json:"code"`
	Subject string       `json:"subject,omitempty"`
	Text    string       `json:"text"`
	Hint    string       `json:"hint,omitempty"`
}

func tableSummaries(ctx context.Context, q catalog.Querier, link string, epoch int64) ([]TableSummary, error) {
	rows, err := q.Query(ctx, `SELECT format('%I.%I', t.schema_name, t.table_name), count(*) FILTER (WHERE c.kind = 'insert'), count(*) FILTER (WHERE c.kind = 'update'),
			count(*) FILTER (WHERE c.kind = 'delete'), count(*) FILTER (WHERE c.kind = 'truncate'), count(*) FILTER (WHERE c.kind = 'rewrite')
		FROM twinspan.lost_change c JOIN twinspan.lost_table t ON t.link = c.link AND t.epoch = c.epoch AND t.number = c.table_number
		WHERE c.link = $1::text::uuid AND c.epoch = $2 GROUP BY 1 ORDER BY 1`, link, epoch)
	if err != nil {
		return nil, pg.Classify(err, "count what was lost")
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[TableSummary])
	return list, pg.Classify(err, "count what was lost")
}

// Discard forgets what was lost at a parting, but for the fact itself. One that is
// not known is a problem of kind NotFound, and one that has yet to be mended of
// kind Conflict: a rejoin needs it.
func Discard(ctx context.Context, conn *pgx.Conn, link string, epoch int64) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		var mended bool
		err := tx.QueryRow(ctx, `UPDATE twinspan.lost SET discarded = mended WHERE link = $1::text::uuid AND epoch = $2 RETURNING mended`, link, epoch).Scan(&mended)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return unknown(epoch)
		case err != nil:
			return pg.Classify(err, "discard what was lost")
		case !mended:
			return problem.New(problem.Conflict, "lost_needed", "what was lost at epoch %d tells a rejoin which rows to mend", epoch).
				WithHint("rejoin first: twinspan link rejoin NAME")
		}
		for _, table := range recorded {
			if _, err := tx.Exec(ctx, `DELETE FROM twinspan.`+table+` WHERE link = $1::text::uuid AND epoch = $2`, link, epoch); err != nil {
				return pg.Classify(err, "discard what was lost")
			}
		}
		return nil
	})
}

// recorded are the tables that hold what was lost. The sessions of agents have
// the role replica, in which nothing cascades.
var recorded = [...]string{"lost_value", "lost_change", "lost_transaction", "lost_table", "lost_key", "lost_mend"}

func unknown(epoch int64) error {
	return problem.New(problem.NotFound, "lost_unknown", "nothing was lost here at epoch %d", epoch)
}

// known makes sure that there is such a parting.
func known(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	var have bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM twinspan.lost WHERE link = $1::text::uuid AND epoch = $2)`, link, epoch).Scan(&have)
	if err == nil && !have {
		return unknown(epoch)
	}
	return pg.Classify(err, "read what was lost")
}
