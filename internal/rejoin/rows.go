package rejoin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/verify"
)

// writer writes this side's tables in a transaction of a fenced session.
func (f *Former) writer(tx pgx.Tx) *rights.Writer {
	return &rights.Writer{TX: tx, DSN: f.side.DSN, Link: f.side.Name()}
}

// overwrite replaces the rows at the keys with those of the new primary, while this
// side stands where its snapshot is, and returns how many there are.
func (f *Former) overwrite(ctx context.Context, conn *pgx.Conn, p lost.Parting, m *meet.Meeting) (rows int64, err error) {
	touched, _, err := lost.TablesNow(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return 0, err
	}
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		w := f.writer(tx)
		for _, t := range touched {
			n, err := overwriteTable(ctx, w, p, t, m.Primary)
			if err != nil {
				return err
			}
			rows += n
		}
		return lost.MarkSettled(ctx, tx, p.Link, p.Epoch)
	})
	return rows, err
}

// overwriteTable is overwrite for one table.
func overwriteTable(ctx context.Context, w *rights.Writer, p lost.Parting, t lost.TouchedTable, from verify.Rows) (rows int64, err error) {
	table, err := w.Table(ctx, t.Name)
	if err != nil {
		return 0, err
	}
	columns, err := writtenColumns(ctx, w.TX, t.OID)
	if err != nil {
		return 0, err
	}
	request := verify.CopyRequest{Subject: verify.Subject{Table: t.Name, Key: t.Key}}
	for _, c := range columns {
		request.Columns = append(request.Columns, verify.Column{Name: c})
	}
	into := func(ctx context.Context) (int64, error) { return insertFenced(ctx, table, columns, from, request) }
	if !table.Fenced() {
		draft := `pg_temp."twinspan mend"`
		_, err = w.TX.Exec(ctx, `DROP TABLE IF EXISTS `+draft+`; CREATE TEMPORARY TABLE "twinspan mend" ON COMMIT DROP AS SELECT `+sqlname.Join(columns)+` FROM ONLY `+t.Name.SQL()+` WITH NO DATA`)
		if err != nil {
			return 0, pg.Classify(err, "prepare to overwrite rows of "+t.Name.String())
		}
		into = func(ctx context.Context) (int64, error) {
			return insertDrafted(ctx, w.TX, draft, t, columns, from, request)
		}
	}
	for after := int64(0); ; {
		keys, last, err := lost.Keys(ctx, w.TX, p.Link, p.Epoch, t.OID, after, lost.KeysAtOnce)
		if err != nil || len(keys) == 0 {
			return rows, err
		}
		if err := lost.DeleteKeys(ctx, table, t, keys); err != nil {
			return rows, err
		}
		request.Keys = keys
		n, err := into(ctx)
		if err != nil {
			return rows, err
		}
		rows, after = rows+n, last
	}
}

// insertDrafted inserts rows of the new primary by a table of their own: the same key may be named
// in two ways, as 1.0 and 1.00, and its row then comes twice.
func insertDrafted(ctx context.Context, tx pgx.Tx, draft string, t lost.TouchedTable, columns []string, from verify.Rows, request verify.CopyRequest) (int64, error) {
	err := copying(ctx, from, request, func(rows io.Reader) error {
		_, err := tx.Conn().PgConn().CopyFrom(ctx, rows, strings.Join([]string{"COPY", draft, "(" + sqlname.Join(columns) + ")", "FROM STDIN"}, " "))
		return err
	})
	if err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, `INSERT INTO `+t.Name.SQL()+` (`+sqlname.Join(columns)+`) OVERRIDING SYSTEM VALUE SELECT DISTINCT ON (`+sqlname.Join(t.Key)+`) `+sqlname.Join(columns)+` FROM `+draft)
	if err == nil {
		_, err = tx.Exec(ctx, `TRUNCATE `+draft)
	}
	return tag.RowsAffected(), pg.Classify(err, "overwrite rows of "+t.Name.String())
}

// insertFenced is insertDrafted where code of users runs at the table. Two that are the same line are the same
// row, for the table has a key.
func insertFenced(ctx context.Context, table *rights.Writable, columns []string, from verify.Rows, request verify.CopyRequest) (int64, error) {
	var text bytes.Buffer
	seen := map[string]bool{}
	err := copying(ctx, from, request, func(rows io.Reader) error {
		lines := bufio.NewReaderSize(rows, 64<<10)
		for {
			line, err := lines.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if line != "" && !seen[line] {
				seen[line] = true
				text.WriteString(line)
			}
			if err != nil {
				return nil
			}
		}
	})
	if err == nil {
		err = table.Insert(ctx, columns, &text)
	}
	return int64(len(seen)), err
}

// writtenColumns lists the columns of a table that can be written.
func writtenColumns(ctx context.Context, tx pgx.Tx, oid uint32) (columns []string, err error) {
	err = tx.QueryRow(ctx, `SELECT ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute a WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
		AND coalesce(to_jsonb(a)->>'attgenerated', '') = '' ORDER BY attnum)`, oid).Scan(&columns)
	return columns, pg.Classify(err, "read a table's columns")
}

// copying has rows of the new primary sent to where they are read.
func copying(ctx context.Context, from verify.Rows, request verify.CopyRequest, read func(io.Reader) error) error {
	reader, writer := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.Copy(ctx, request, writer)
		writer.CloseWithError(err)
		sent <- err
	}()
	err := read(reader)
	reader.CloseWithError(context.Canceled) // so that the sender ends, too
	if failed := <-sent; failed != nil && (err == nil || pg.SQLState(err) == "57014") {
		return failed
	}
	return pg.Classify(err, "copy the new primary's rows")
}
