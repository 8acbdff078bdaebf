package sequence

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

const (
	// atOnce bounds the locks of one look: reading a sequence locks it to the end of
	// the transaction, and the server's table of locks is small.
	atOnce = 500
	// lockWait bounds how long a look waits for a sequence that somebody alters.
	lockWait = "20ms"
	// uncalledFor is how long the state of a sequence that has handed out nothing is
	// taken for known: before version 18 it costs a statement's planning to read.
	uncalledFor = 30 * time.Second
)

// Reader reads all sequences of a database, again and again. It remembers what is
// costly to read; it is for one goroutine at a time. Its zero value is ready.
type Reader struct {
	uncalled map[uint32]uncalled
}

type uncalled struct {
	last int64
	at   time.Time
}

// entry is a sequence that is being read.
type entry struct {
	oid  uint32
	read bool
	Sequence
}

// Read reads every sequence of the database as it is now: sequences know no
// snapshots. One that is locked or dropped meanwhile is left out. With exact,
// nothing is taken from memory. conn must be a superuser's session, outside of a
// transaction. The schema twinspan does not count, temporary ones neither.
func (r *Reader) Read(ctx context.Context, conn *pgx.Conn, exact bool) ([]Sequence, error) {
	entries, err := list(ctx, conn)
	if err != nil {
		return nil, pg.Classify(err, "list the sequences")
	}
	if r.uncalled == nil || exact {
		r.uncalled = map[uint32]uncalled{}
	}
	var version int
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return nil, pg.Classify(err, "read the sequences")
	}
	states := statesBefore18
	if version >= 180000 {
		states = states18
	}
	for part := range slices.Chunk(entries, atOnce) {
		if err := split(ctx, conn, part, r.remembered(states)); err != nil {
			return nil, err
		}
	}
	if version < 180000 {
		if err := r.readUncalled(ctx, conn, entries); err != nil {
			return nil, err
		}
	}
	sequences := make([]Sequence, 0, len(entries))
	for _, e := range entries {
		if e.read {
			sequences = append(sequences, e.Sequence)
		}
	}
	return sequences, nil
}

// list reads the definitions, in the order of names.
func list(ctx context.Context, conn *pgx.Conn) ([]*entry, error) {
	rows, err := conn.Query(ctx, `
		SELECT c.oid, n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
		  FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
		 ORDER BY 2, 3`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*entry, error) {
		var e entry
		return &e, row.Scan(&e.oid, &e.Name.Schema, &e.Name.Name, &e.Increment, &e.Min, &e.Max, &e.Cache, &e.Cycle)
	})
}

// read is a way to read the states of some sequences.
type read func(ctx context.Context, tx pgx.Tx, part []*entry) error

// split reads sequences in one transaction; when one of them is locked or was
// dropped, in halves, until that one is alone and left out.
func split(ctx context.Context, conn *pgx.Conn, part []*entry, read read) error {
	err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '`+lockWait+`'`); err != nil {
			return err
		}
		return read(ctx, tx, part)
	})
	// 55P03: locked; 42P01, XX000: dropped, by name and by OID.
	if state := pg.SQLState(err); state != "55P03" && state != "42P01" && state != "XX000" {
		return pg.Classify(err, "read the sequences")
	}
	for _, e := range part {
		e.read = false
	}
	if len(part) == 1 {
		return nil
	}
	half := len(part) / 2
	if err := split(ctx, conn, part[:half], read); err != nil {
		return err
	}
	return split(ctx, conn, part[half:], read)
}

// The states of sequences by OID. Before version 18 there is a function for the
// last value only, which is NULL while it is not called (pg_sequence_last_value).
const (
	statesBefore18 = `SELECT o.i, v.last, true FROM pg_catalog.unnest($1::oid[]) WITH ORDINALITY AS o (oid, i),
		LATERAL (SELECT pg_catalog.pg_sequence_last_value(o.oid) AS last) v`
	states18 = `SELECT o.i, v.last_value, v.is_called FROM pg_catalog.unnest($1::oid[]) WITH ORDINALITY AS o (oid, i),
		LATERAL pg_catalog.pg_get_sequence_data(o.oid) v`
)

// remembered reads by function; sequences that it says nothing of are left unread.
func (r *Reader) remembered(sql string) read {
	return func(ctx context.Context, tx pgx.Tx, part []*entry) error {
		oids := make([]uint32, len(part))
		for i, e := range part {
			oids[i] = e.oid
		}
		rows, err := tx.Query(ctx, sql, oids)
		if err != nil {
			return err
		}
		var i int64
		var last *int64
		var called *bool
		_, err = pgx.ForEachRow(rows, []any{&i, &last, &called}, func() error {
			e := part[i-1]
			if e.read = last != nil && called != nil; e.read {
				e.Last, e.IsCalled = *last, *called
				delete(r.uncalled, e.oid)
			}
			return nil
		})
		return err
	}
}

// readUncalled reads the sequences that the function said nothing of.
func (r *Reader) readUncalled(ctx context.Context, conn *pgx.Conn, entries []*entry) error {
	now := time.Now()
	var unknown []*entry
	for _, e := range entries {
		if e.read {
			continue
		}
		if known, ok := r.uncalled[e.oid]; ok && now.Sub(known.at) < uncalledFor {
			e.read, e.State = true, State{Last: known.last}
			continue
		}
		unknown = append(unknown, e)
	}
	for part := range slices.Chunk(unknown, atOnce) {
		if err := split(ctx, conn, part, direct); err != nil {
			return err
		}
		for _, e := range part {
			if e.read && !e.IsCalled {
				r.uncalled[e.oid] = uncalled{e.Last, now}
			}
		}
	}
	return nil
}

// direct reads sequences as tables, many in one statement.
func direct(ctx context.Context, tx pgx.Tx, part []*entry) error {
	var sql strings.Builder
	for i, e := range part {
		if i > 0 {
			sql.WriteString(" UNION ALL ")
		}
		fmt.Fprintf(&sql, "SELECT %d, last_value, is_called FROM %s", i, e.Name.SQL())
	}
	rows, err := tx.Query(ctx, sql.String())
	if err != nil {
		return err
	}
	var i int
	var s State
	_, err = pgx.ForEachRow(rows, []any{&i, &s.Last, &s.IsCalled}, func() error {
		part[i].read, part[i].State = true, s
		return nil
	})
	return err
}

// Names lists the names of sequences.
func Names(sequences []Sequence) []sqlname.Table {
	names := make([]sqlname.Table, len(sequences))
	for i, s := range sequences {
		names[i] = s.Name
	}
	return names
}
