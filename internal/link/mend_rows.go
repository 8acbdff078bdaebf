package link

import (
	"context"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/verify"
)

// keysAtOnce is how many rows are asked for at once.
const keysAtOnce = 5000

// overwrite replaces the rows at the keys with those of the new primary, while this
// side stands where its snapshot is, and returns how many there are.
func (l *Link) overwrite(ctx context.Context, conn *pgx.Conn, p lost.Parting, m *meeting) (rows int64, err error) {
	touched, _, err := lost.TablesNow(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return 0, err
	}
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off`); err != nil {
			return pg.Classify(err, "prepare to overwrite rows")
		}
		for _, t := range touched {
			n, err := overwriteTable(ctx, tx, p, t, m.primary)
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
func overwriteTable(ctx context.Context, tx pgx.Tx, p lost.Parting, t lost.TouchedTable, from verify.Rows) (rows int64, err error) {
	columns, err := writtenColumns(ctx, tx, t.OID)
	if err != nil {
		return 0, err
	}
	// The same key may be named in two ways, as 1.0 and 1.00, and its row then comes
	// twice.
	draft := `pg_temp."twinspan mend"`
	_, err = tx.Exec(ctx, `DROP TABLE IF EXISTS `+draft+`; CREATE TEMPORARY TABLE "twinspan mend" ON COMMIT DROP AS SELECT `+sqlname.Join(columns)+` FROM ONLY `+t.Name.SQL()+` WITH NO DATA`)
	if err != nil {
		return 0, pg.Classify(err, "prepare to overwrite rows of "+t.Name.String())
	}
	request := verify.CopyRequest{Subject: verify.Subject{Table: t.Name, Key: t.Key}}
	for _, c := range columns {
		request.Columns = append(request.Columns, verify.Column{Name: c})
	}
	for after := int64(0); ; {
		keys, last, err := lost.Keys(ctx, tx, p.Link, p.Epoch, t.OID, after, keysAtOnce)
		if err != nil || len(keys) == 0 {
			return rows, err
		}
		if err := lost.DeleteKeys(ctx, tx, p.Link, p.Epoch, t, after, last); err != nil {
			return rows, err
		}
		request.Keys = keys
		if err := copyInto(ctx, tx, draft, columns, from, request); err != nil {
			return rows, err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO `+t.Name.SQL()+` (`+sqlname.Join(columns)+`) OVERRIDING SYSTEM VALUE SELECT DISTINCT ON (`+sqlname.Join(t.Key)+`) `+sqlname.Join(columns)+` FROM `+draft)
		if err == nil {
			_, err = tx.Exec(ctx, `TRUNCATE `+draft)
		}
		if err != nil {
			return rows, pg.Classify(err, "overwrite rows of "+t.Name.String())
		}
		rows, after = rows+tag.RowsAffected(), last
	}
}

// writtenColumns lists the columns of a table that can be written.
func writtenColumns(ctx context.Context, tx pgx.Tx, oid uint32) (columns []string, err error) {
	err = tx.QueryRow(ctx, `SELECT ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute a WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
		AND coalesce(to_jsonb(a)->>'attgenerated', '') = '' ORDER BY attnum)`, oid).Scan(&columns)
	return columns, pg.Classify(err, "read a table's columns")
}

// copyInto copies rows of the new primary into a table.
func copyInto(ctx context.Context, tx pgx.Tx, table string, columns []string, from verify.Rows, request verify.CopyRequest) error {
	reader, writer := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.Copy(ctx, request, writer)
		writer.CloseWithError(err)
		sent <- err
	}()
	_, err := tx.Conn().PgConn().CopyFrom(ctx, reader, strings.Join([]string{"COPY", table, "(" + sqlname.Join(columns) + ")", "FROM STDIN"}, " "))
	reader.CloseWithError(context.Canceled) // so that the sender ends, too
	if failed := <-sent; failed != nil && (err == nil || pg.SQLState(err) == "57014") {
		return failed
	}
	return pg.Classify(err, "copy the new primary's rows")
}
