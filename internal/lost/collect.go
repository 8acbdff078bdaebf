package lost

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// bigMessage is the length from which a message goes through a file.
	bigMessage = 8 << 20
	// commitBytes is how much is recorded in one transaction, roughly.
	commitBytes = 32 << 20
	// copyBytes is how much of it is held in memory.
	copyBytes = 4 << 20
)

// Collector records what was lost at a parting in the database where it was
// committed. Set the fields, then call Run; the database must refuse writes.
type Collector struct {
	Parting
	DSN    *pg.DSN
	Name   string // the link's name, for the names of sessions
	Source Source
	// Spill keeps a message that is too large for memory.
	Spill func(ctx context.Context, from io.Reader, length int) (Big, error)
	Log   *slog.Logger
}

// errEnd ends the reading: the end of the log was reached.
var errEnd = errors.New("everything was read")

// Run reads everything that committed between the parting and now, and returns
// when it is recorded. It goes on where an earlier run was ended, and finds what
// was committed since one that was complete. A slot that cannot give it is
// recorded as the parting's problem, unless everything was read before, and no error.
func (c *Collector) Run(ctx context.Context) error {
	began := time.Now()
	conn, encoding, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	w, end, err := c.begin(ctx, conn)
	if err != nil {
		return err
	}
	err = c.read(ctx, w, encoding, end)
	if problem.KindOf(err) == problem.Diverged {
		c.Log.Warn("lost transactions cannot be read", "link", c.Name, "code", problem.CodeOf(err), "err", err)
		return c.refuse(ctx, conn, problem.As(err))
	}
	if err == nil {
		c.Log.Info("lost transactions are recorded", "link", c.Name, "epoch", c.Epoch, "lsn", end, "transactions", w.transactions, "changes", w.changes, "dur", time.Since(began))
	}
	return err
}

// connect opens a session whose text is the database's own, byte by byte.
func (c *Collector) connect(ctx context.Context) (conn *pgx.Conn, encoding string, err error) {
	// A commit has to last: the log that it was read from may go.
	session := pg.Session{Name: c.Name + "/lost", Apply: true, Settings: map[string]string{"lock_timeout": "10s"}}
	conn, err = c.DSN.Connect(ctx, session)
	if err != nil {
		return nil, "", err
	}
	err = conn.QueryRow(ctx, `SELECT current_setting('server_encoding')`).Scan(&encoding)
	if err == nil {
		_, err = conn.Exec(ctx, `SELECT set_config('client_encoding', $1, false)`, encoding)
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, "", pg.Classify(err, "read the database's encoding")
	}
	return conn, encoding, nil
}

// begin notes the parting, and finds where to read from and to.
func (c *Collector) begin(ctx context.Context, conn *pgx.Conn) (w *writer, end lsn.LSN, err error) {
	if err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
		return nil, 0, pg.Classify(err, "read the end of the log")
	}
	// This commit is behind the end, so that all before it gets to the disk, from
	// where the slot is read.
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO twinspan.lost (link, epoch, parted, read_to) VALUES ($1::text::uuid, $2, $3::text::pg_lsn, $3::text::pg_lsn)
			ON CONFLICT (link, epoch) DO UPDATE SET problem = NULL`, c.Link, c.Epoch, c.Parted.String())
		if err != nil {
			return err
		}
		return catalog.Readable(ctx, tx) // rows are to come, which are not for the database's owner
	})
	if err != nil {
		return nil, 0, pg.Classify(err, "note the parting")
	}
	w = &writer{Parting: c.Parting, conn: conn, tables: map[uint32]*table{}}
	err = conn.QueryRow(ctx, `SELECT read_to::text, coalesce((SELECT max(number) FROM twinspan.lost_transaction t WHERE (t.link, t.epoch) = (l.link, l.epoch)), 0),
			coalesce((SELECT max(number) FROM twinspan.lost_change t WHERE (t.link, t.epoch) = (l.link, l.epoch)), 0),
			coalesce((SELECT max(number) FROM twinspan.lost_table t WHERE (t.link, t.epoch) = (l.link, l.epoch)), 0)
		FROM twinspan.lost l WHERE link = $1::text::uuid AND epoch = $2`, c.Link, c.Epoch).Scan(&w.readTo, &w.transactions, &w.changes, &w.lastTable)
	return w, end, pg.Classify(err, "read where to go on")
}

// read takes the records from the source until the end of the log.
func (c *Collector) read(ctx context.Context, w *writer, encoding string, end lsn.LSN) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pipe, in := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.CloseWithError(c.Source.Read(ctx, w.readTo, encoding, in))
	}()
	r := &reader{from: pipe, spill: c.Spill, writer: w, end: end}
	err := r.run(ctx)
	stop(errEnd)
	pipe.CloseWithError(errEnd)
	<-done
	w.rollback(context.WithoutCancel(ctx))
	return err
}

// refuse records that the slot cannot give what was lost.
func (c *Collector) refuse(ctx context.Context, conn *pgx.Conn, p *problem.Error) error {
	b, err := json.Marshal(stored{p.Kind, p.Code, p.Subject, p.Error(), p.Hint})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `UPDATE twinspan.lost SET problem = $3::text::jsonb WHERE link = $1::text::uuid AND epoch = $2 AND NOT complete`, c.Link, c.Epoch, string(b))
	return pg.Classify(err, "note that nothing can be read")
}
