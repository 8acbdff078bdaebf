package verify

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Rows gives the primary's rows for a repair: those at the position at which the
// secondary stands, for keys; those of the comparison, for places.
type Rows interface {
	Copy(ctx context.Context, r CopyRequest, w io.Writer) error
}

// RepairRows brings the rows of tables in line with the primary's, in one
// transaction. The session must be one of pg.Session{Apply: true}, and for tables
// with a key nothing may be applied meanwhile: now has the primary's rows at just
// this position. then has those of the comparison that f is of, whose secondary
// side is given too. Large objects are not repaired.
func RepairRows(ctx context.Context, conn *pgx.Conn, f *Findings, secondary *Snapshot, now, then Rows) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		for i := range f.Tables {
			t := &f.Tables[i]
			if err := t.settings(ctx, tx); err != nil {
				return err
			}
			var err error
			switch {
			case IsLargeObjects(t.Table):
			case len(t.Key) > 0:
				err = repairKeyed(ctx, tx, t, secondary, now)
			default:
				err = repairKeyless(ctx, tx, t, then)
			}
			if err != nil {
				return fmt.Errorf("repair table %s: %w", t.Table, err)
			}
		}
		return nil
	})
}

// settings makes values print as they did in the comparison.
func (t *TableFinding) settings(ctx context.Context, tx pgx.Tx) error {
	if !t.Method.OldText {
		return nil
	}
	_, err := tx.Exec(ctx, "SET LOCAL extra_float_digits = 0")
	return pg.Classify(err, "prepare a repair")
}

// repairKeyed deletes the rows with the keys and copies the primary's.
func repairKeyed(ctx context.Context, tx pgx.Tx, t *TableFinding, secondary *Snapshot, now Rows) error {
	here, err := secondary.tableOf(ctx, t.Table)
	if err != nil {
		return err
	}
	keys := make([][]string, len(t.Rows))
	for i, d := range t.Rows {
		keys[i] = d.Key
	}
	item, condition := lookup(here.keyOf(t.Key), keys)
	_, err = tx.Exec(ctx, "DELETE FROM "+t.from()+" USING "+item+" WHERE "+condition)
	if err != nil {
		return pg.Classify(err, "delete rows that differ")
	}
	return copyRows(ctx, tx, t, now, CopyRequest{Subject: t.Subject, Keys: keys})
}

// repairKeyless deletes copies of rows that are too many, and adds those that are
// too few. A row that is no more where it was is left for the next comparison.
func repairKeyless(ctx context.Context, tx pgx.Tx, t *TableFinding, then Rows) error {
	var missing []string
	for _, d := range t.Rows {
		if d.State == Missing {
			missing = append(missing, d.places[:d.Primary-d.Secondary]...)
			continue
		}
		_, err := tx.Exec(ctx, fmt.Sprintf("DELETE FROM ONLY %s AS t WHERE %s AND t.ctid IN (SELECT place::tid FROM (%s) AS y WHERE h1 = %d AND h2 = %d)",
			t.Table.SQL(), at(d.otherPlaces[:d.Secondary-d.Primary]), t.hashedSQL(at(d.otherPlaces), named{t.place(), "place"}), d.hash1, d.hash2))
		if err != nil {
			return pg.Classify(err, "delete rows that are too many")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return copyRows(ctx, tx, t, then, CopyRequest{Subject: t.Subject, Places: missing})
}

// CopyTable replaces all rows of a table by the primary's, in one transaction. The
// session must be one of pg.Session{Apply: true}.
func CopyTable(ctx context.Context, conn *pgx.Conn, t Table, from Rows) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM ONLY "+t.Name.SQL()); err != nil {
			return pg.Classify(err, "empty "+t.Name.String())
		}
		f := &TableFinding{Subject: Subject{Table: t.Name, Columns: t.Columns}}
		return copyRows(ctx, tx, f, from, CopyRequest{Subject: f.Subject, All: true})
	})
}

// copyRows copies rows of the primary as they come.
func copyRows(ctx context.Context, tx pgx.Tx, t *TableFinding, from Rows, r CopyRequest) error {
	reader, writer := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.Copy(ctx, r, writer)
		writer.CloseWithError(err)
		sent <- err
	}()
	_, err := tx.Conn().PgConn().CopyFrom(ctx, reader, "COPY "+t.Table.SQL()+columnList(written(t.Columns))+" FROM STDIN")
	reader.CloseWithError(context.Canceled) // so that the sender ends, too
	if failed := <-sent; failed != nil && (err == nil || pg.SQLState(err) == "57014") {
		return failed
	}
	return pg.Classify(err, "copy the primary's rows")
}

// columnList names the columns of a COPY. An empty list cannot be written; without one
// COPY takes all columns that are not generated.
func columnList(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (" + sqlname.Join(names) + ")"
}

// RepairSchema builds missing and invalid indexes, and constraints, and alters
// sequences, as the primary has them. All else is left to a person. The session
// must be one of pg.Session{Apply: true}, outside of a transaction.
func RepairSchema(ctx context.Context, conn *pgx.Conn, list []SchemaDifference) error {
	order := slices.Clone(list)
	// Indexes of partitioned tables make those of the partitions; foreign keys need
	// the keys that they refer to.
	slices.SortStableFunc(order, func(a, b SchemaDifference) int { return repairRank(&a) - repairRank(&b) })
	for _, d := range order {
		for _, sql := range d.statements() {
			// What lets others work waits for transactions of theirs; what does not, must
			// not keep them waiting.
			patience := "5s"
			if strings.Contains(sql, " CONCURRENTLY ") {
				patience = "0"
			}
			if _, err := conn.Exec(ctx, "SET lock_timeout = '"+patience+"'"); err != nil {
				return pg.Classify(err, "prepare a repair")
			}
			if _, err := conn.Exec(ctx, sql); err != nil && pg.SQLState(err) != "42P07" {
				return fmt.Errorf("repair %s %s: %w", d.Kind, d.Name, pg.Classify(err, "build it as the primary has it"))
			}
		}
	}
	return nil
}

func repairRank(d *SchemaDifference) int {
	switch {
	case d.Kind == "constraint" && d.entry.Index != "":
		return 0
	case d.Kind == "index" && d.entry.Index == "I":
		return 1
	case d.Kind == "index":
		return 2
	}
	return 3
}

// Statement is the SQL that brings one row in line on the secondary, in a session
// whose session_replication_role is replica and that passes the gate. It needs the row's values, or else
// there is none but for rows that are too many.
func (t *TableFinding) Statement(d *RowDifference) string {
	if len(t.Key) == 0 || IsLargeObjects(t.Table) {
		return ""
	}
	conditions := make([]string, len(t.Key))
	for i, k := range t.Key {
		conditions[i] = sqlname.Quote(k) + " = " + sqlname.Literal(d.Key[i])
	}
	where := " WHERE " + strings.Join(conditions, " AND ")
	switch {
	case d.State == Extra:
		return "DELETE FROM ONLY " + t.Table.SQL() + where
	case d.OnPrimary == nil || slices.ContainsFunc(d.OnPrimary, func(v *string) bool { return v != nil && strings.HasPrefix(*v, longMark) }):
		return ""
	case d.State == Missing:
		return t.insert(d)
	case d.Secondary > 1:
		return "DELETE FROM ONLY " + t.Table.SQL() + where + "; " + t.insert(d)
	}
	var set []string
	for i, c := range t.Columns {
		if slices.Contains(d.Columns, c.Name) && !c.Generated {
			set = append(set, sqlname.Quote(c.Name)+" = "+literal(d.OnPrimary[i]))
		}
	}
	if len(set) == 0 {
		return ""
	}
	return "UPDATE ONLY " + t.Table.SQL() + " SET " + strings.Join(set, ", ") + where
}

func (t *TableFinding) insert(d *RowDifference) string {
	var names, values []string
	for i, c := range t.Columns {
		if !c.Generated {
			names, values = append(names, c.Name), append(values, literal(d.OnPrimary[i]))
		}
	}
	return "INSERT INTO " + t.Table.SQL() + " (" + sqlname.Join(names) + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(values, ", ") + ")"
}

func literal(v *string) string {
	if v == nil {
		return "NULL"
	}
	return sqlname.Literal(*v)
}
