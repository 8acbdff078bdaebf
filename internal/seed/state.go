package seed

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// state is all that the secondary's database knows of the copy.
type state struct {
	sessions []session
	tables   []*table
}

func (s *state) last() *session { return &s.sessions[len(s.sessions)-1] }

// complete says that the plan was made and every table is copied.
func (s *state) complete() bool {
	if len(s.sessions) == 0 {
		return false
	}
	for _, t := range s.tables {
		if !t.complete() {
			return false
		}
	}
	return true
}

// querier is a session or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (t *Target) load(ctx context.Context, q querier) (*state, error) {
	s, err := t.loadRows(ctx, q)
	return s, pg.Classify(err, "read the state of the seeding")
}

func (t *Target) loadRows(ctx context.Context, q querier) (*state, error) {
	rows, err := q.Query(ctx, `SELECT session, token, lsn::text, xid, system_id, encoding FROM twinspan.seed_session WHERE link = $1::text::uuid ORDER BY session`, t.Link)
	if err != nil {
		return nil, err
	}
	s := &state{}
	if s.sessions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (n session, err error) {
		return n, row.Scan(&n.number, &n.Token, &n.LSN, &n.Xmin, &n.SystemID, &n.Encoding)
	}); err != nil {
		return nil, err
	}
	rows, err = q.Query(ctx, `SELECT spec FROM twinspan.seed_table WHERE link = $1::text::uuid ORDER BY oid`, t.Link)
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]*table{}
	if s.tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*table, error) {
		var spec string
		if err := row.Scan(&spec); err != nil {
			return nil, err
		}
		n := &table{}
		err := json.Unmarshal([]byte(spec), &n.Table)
		byOID[n.OID] = n
		return n, err
	}); err != nil {
		return nil, err
	}
	rows, err = q.Query(ctx, `SELECT oid, number, first_block, coalesce(end_block, 0), bytes, coalesce(first_session, 0), coalesce(session, 0)
		FROM twinspan.seed_chunk WHERE link = $1::text::uuid ORDER BY oid, number`, t.Link)
	if err != nil {
		return nil, err
	}
	var oid uint32
	var c chunk
	_, err = pgx.ForEachRow(rows, []any{&oid, &c.number, &c.first, &c.end, &c.bytes, &c.from, &c.at}, func() error {
		n := c
		byOID[oid].chunks = append(byOID[oid].chunks, &n)
		return nil
	})
	return s, err
}

// insertSession records a session. Chunks are recorded as copied only in the
// newest one, so what an older session's worker still does comes to nothing.
func (t *Target) insertSession(ctx context.Context, tx pgx.Tx, number int, b Begun) error {
	_, err := tx.Exec(ctx, `INSERT INTO twinspan.seed_session (link, session, token, lsn, xid, system_id, encoding)
		VALUES ($1::text::uuid, $2, $3, $4::text::pg_lsn, $5, $6, $7)`, t.Link, number, b.Token, b.LSN.String(), int64(b.Xmin), b.SystemID, b.Encoding)
	if pg.SQLState(err) == "23505" {
		return problem.New(problem.Transient, "already_begun", "another agent began a seeding session at the same time")
	}
	return pg.Classify(err, "record the seeding session")
}

// insertTables records tables and their chunks, which must not be there.
func (t *Target) insertTables(ctx context.Context, tx pgx.Tx, tables []*table) error {
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"twinspan", "seed_table"}, []string{"link", "oid", "schema_name", "table_name", "filenode", "bytes", "spec"},
		pgx.CopyFromSlice(len(tables), func(i int) ([]any, error) {
			n := tables[i]
			spec, err := json.Marshal(n.Table)
			return []any{t.Link, n.OID, n.Name.Schema, n.Name.Name, n.Filenode, n.Bytes, string(spec)}, err
		}))
	if err != nil {
		return pg.Classify(err, "record the tables to copy")
	}
	var rows [][]any
	for _, n := range tables {
		for _, c := range n.chunks {
			var end any
			if c.end > 0 {
				end = c.end
			}
			rows = append(rows, []any{t.Link, n.OID, c.number, c.first, end, c.bytes})
		}
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"twinspan", "seed_chunk"}, []string{"link", "oid", "number", "first_block", "end_block", "bytes"}, pgx.CopyFromRows(rows))
	return pg.Classify(err, "record the chunks to copy")
}

// begin records the first session with the plan.
func (t *Target) begin(ctx context.Context, conn *pgx.Conn, b Begun, list []Table) error {
	var total int64
	for i := range list {
		total += list[i].Bytes
	}
	size, whole := t.ChunkBytes, int64(0)
	if size == 0 {
		size = chunkBytes(total, t.workers())
		if t.MaxRate == nil || t.MaxRate() == 0 { // else it would take long, and others wait for the worker
			whole = wholeTable(total, t.workers())
		}
	}
	tables := make([]*table, len(list))
	for i := range list {
		tables[i] = &table{Table: list[i], chunks: divide(&list[i], size, whole)}
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return pg.Classify(err, "begin to record the plan")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := t.insertSession(ctx, tx, 1, b); err != nil {
		return err
	}
	if err := t.insertTables(ctx, tx, tables); err != nil {
		return err
	}
	return pg.Classify(tx.Commit(ctx), "record the plan")
}

// reconcile records a later session and what becomes of each table in it. The
// lock waits for chunks that are being recorded and keeps others from it.
func (t *Target) reconcile(ctx context.Context, conn *pgx.Conn, b Begun, list []Table) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return pg.Classify(err, "begin to record the seeding session")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, lockChunks); err != nil {
		return pg.Classify(err, "lock the chunks")
	}
	s, err := t.load(ctx, tx)
	if err != nil {
		return err
	}
	if b.SystemID != s.sessions[0].SystemID {
		return problem.New(problem.Diverged, "primary_replaced", "the primary's server is not the one that the copy was begun from").
			WithHint("delete the link and create it again; twinspan copies the database anew")
	}
	number := s.last().number + 1
	if err := t.insertSession(ctx, tx, number, b); err != nil {
		return err
	}
	now := map[uint32]*Table{}
	for i := range list {
		now[list[i].OID] = &list[i]
	}
	var again []*table
	for _, n := range s.tables {
		current := now[n.OID]
		delete(now, n.OID)
		f := n.decide(current, b.Xmin, s.sessions)
		t.Log.Debug("table at a new seeding session", "link", t.Name, "table", n.Name.String(), "fate", string(f))
		switch f {
		case gone:
			return schemaChanged(n.Name, "it was dropped, renamed or altered")
		case restart:
			t.Log.Info("table is copied again", "link", t.Name, "table", n.Name.String())
			table, err := (&rights.Writer{TX: tx, DSN: t.DSN, Link: t.Name}).Table(ctx, n.Name)
			if err == nil {
				err = table.Empty(ctx)
			}
			if err != nil {
				return err
			}
			again = append(again, t.divided(*current))
		case plan:
			again = append(again, t.divided(*current))
		}
	}
	for _, n := range now {
		if !b.Follows {
			return schemaChanged(n.Name, "it was created")
		}
		t.Log.Debug("table comes with the stream", "link", t.Name, "table", n.Name.String())
	}
	if err := t.replaceTables(ctx, tx, again); err != nil {
		return err
	}
	return pg.Classify(tx.Commit(ctx), "record the seeding session")
}

// divided is a table as it is copied once a copy was interrupted: in small chunks.
func (t *Target) divided(n Table) *table {
	return &table{Table: n, chunks: divide(&n, cmp.Or(t.ChunkBytes, minChunk), 0)}
}

// divideWhole divides what was to be copied as a whole, after an interruption: on a
// network that breaks again and again it might never come to its end in one piece.
func (t *Target) divideWhole(ctx context.Context, conn *pgx.Conn, s *state) (*state, error) {
	undone := func(n *table) bool {
		return len(n.chunks) == 1 && !n.started() && len(t.divided(n.Table).chunks) > 1
	}
	if !slices.ContainsFunc(s.tables, undone) {
		return s, nil
	}
	err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockChunks); err != nil {
			return pg.Classify(err, "lock the chunks")
		}
		now, err := t.load(ctx, tx)
		if err != nil {
			return err
		}
		var again []*table
		for _, n := range now.tables {
			if undone(n) {
				again = append(again, t.divided(n.Table))
			}
		}
		return t.replaceTables(ctx, tx, again)
	})
	if err != nil {
		return nil, err
	}
	return t.load(ctx, conn)
}

// lockChunks waits for chunks that are being recorded and keeps others from it.
const lockChunks = `LOCK TABLE twinspan.seed_chunk IN SHARE MODE`

func (t *Target) replaceTables(ctx context.Context, tx pgx.Tx, tables []*table) error {
	oids := make([]uint32, len(tables))
	for i, n := range tables {
		oids[i] = n.OID
	}
	// The session's role is replica: nothing cascades.
	for _, name := range []string{"seed_chunk", "seed_table"} {
		if _, err := tx.Exec(ctx, `DELETE FROM twinspan.`+name+` WHERE link = $1::text::uuid AND oid = ANY ($2)`, t.Link, oids); err != nil {
			return pg.Classify(err, "forget the chunks of tables that are copied again")
		}
	}
	return t.insertTables(ctx, tx, tables)
}

// columnNames lists the names of a table's columns.
func columnNames(columns []Column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

// binary says whether a table's rows can cross in binary form: on both sides the
// same types, each with a form that means the same everywhere.
func binaryBetween(source, target []Column, name sqlname.Table) (bool, error) {
	types := map[string]Column{}
	for _, c := range target {
		types[c.Name] = c
	}
	binary := true
	for _, c := range source {
		there, ok := types[c.Name]
		if !ok {
			return false, schemaChanged(name, "the twin has no column "+c.Name)
		}
		binary = binary && c.Binary && there.Binary && c.Type == there.Type
	}
	return binary, nil
}
