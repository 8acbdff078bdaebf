package verify

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Rows gives the primary's rows for a repair: those at the position at which the
// secondary stands, for keys; those of the comparison, for places.
type Rows interface {
	Copy(ctx context.Context, r CopyRequest, w io.Writer) error
}

// RepairRows brings the rows of tables in line with the primary's, in one
// transaction. The session must be one of pg.Session{Apply: true, Fenced: true}, and for tables
// with a key nothing may be applied meanwhile: now has the primary's rows at just
// this position. then has those of the comparison that f is of, whose secondary
// side is given too. Large objects and materialized views are passed over: the ones are brought anew
// (largeobject), the others refreshed (RefreshViews).
func RepairRows(ctx context.Context, conn *pgx.Conn, f *Findings, secondary *Snapshot, now, then Rows) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		w := &rights.Writer{TX: tx, DSN: secondary.DSN, Link: secondary.Link}
		for i := range f.Tables {
			t := &f.Tables[i]
			if !t.written() {
				continue
			}
			here, err := w.Table(ctx, t.Table, t.finding()...)
			if err == nil {
				err = t.settings(ctx, tx)
			}
			switch {
			case err != nil:
			case len(t.Key) > 0:
				err = repairKeyed(ctx, here, t, secondary, now)
			default:
				err = repairKeyless(ctx, here, t, then)
			}
			if err != nil {
				return fmt.Errorf("repair table %s: %w", t.Table, err)
			}
		}
		return nil
	})
}

// written says that rows are written to repair it.
func (t *TableFinding) written() bool { return !t.View && !IsLargeObjects(t.Table) }

// WithRows says whether RepairRows has something to do.
func (f *Findings) WithRows() bool {
	return slices.ContainsFunc(f.Tables, func(t TableFinding) bool { return t.written() })
}

// finding is under which settings rows are found by their texts as the comparison had them.
func (t *TableFinding) finding() []rights.Setting {
	if t.Method.OldText {
		return []rights.Setting{{Name: "extra_float_digits", Value: "0"}}
	}
	return nil
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
func repairKeyed(ctx context.Context, w *rights.Writable, t *TableFinding, secondary *Snapshot, now Rows) error {
	here, err := secondary.tableOf(ctx, t.Table)
	if err != nil {
		return err
	}
	keys := make([][]string, len(t.Rows))
	for i, d := range t.Rows {
		keys[i] = d.Key
	}
	item, condition := lookup(here.keyOf(t.Key), keys)
	if err := w.Remove(ctx, "DELETE FROM "+t.from()+" USING "+item+" WHERE "+condition, "delete rows that differ"); err != nil {
		return err
	}
	return copyRows(ctx, w, t, now, CopyRequest{Subject: t.Subject, Keys: keys})
}

// repairKeyless deletes copies of rows that are too many, and adds those that are
// too few. A row that is no more where it was is left for the next comparison.
func repairKeyless(ctx context.Context, w *rights.Writable, t *TableFinding, then Rows) error {
	var missing []string
	for _, d := range t.Rows {
		if d.State == Missing {
			missing = append(missing, d.places[:d.Primary-d.Secondary]...)
			continue
		}
		err := w.Remove(ctx, fmt.Sprintf("DELETE FROM ONLY %s AS t WHERE %s AND t.ctid IN (SELECT place::tid FROM (%s) AS y WHERE h1 = %d AND h2 = %d)",
			t.Table.SQL(), at(d.otherPlaces[:d.Secondary-d.Primary]), t.hashedSQL(at(d.otherPlaces), named{t.place(), "place"}), d.hash1, d.hash2), "delete rows that are too many")
		if err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return copyRows(ctx, w, t, then, CopyRequest{Subject: t.Subject, Places: missing})
}

// CopyTable replaces all rows of a table by the primary's, in one transaction. The
// session must be one of pg.Session{Apply: true, Fenced: true} that dsn leads to; link is
// the link's name, for those beside it.
func CopyTable(ctx context.Context, conn *pgx.Conn, dsn *pg.DSN, link string, t Table, from Rows) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		f := &TableFinding{Subject: Subject{Table: t.Name, Columns: t.Columns}}
		w, err := (&rights.Writer{TX: tx, DSN: dsn, Link: link}).Table(ctx, f.Table)
		if err == nil {
			err = w.Remove(ctx, "DELETE FROM ONLY "+t.Name.SQL(), "empty "+t.Name.String())
		}
		if err != nil {
			return err
		}
		return copyRows(ctx, w, f, from, CopyRequest{Subject: f.Subject, All: true})
	})
}

// copyRows copies rows of the primary as they come.
func copyRows(ctx context.Context, w *rights.Writable, t *TableFinding, from Rows, r CopyRequest) error {
	reader, writer := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.Copy(ctx, r, writer)
		writer.CloseWithError(err)
		sent <- err
	}()
	var err error
	if columns := written(t.Columns); w.Fenced() {
		err = w.Insert(ctx, columns, reader)
	} else {
		_, err = w.TX.Conn().PgConn().CopyFrom(ctx, reader, "COPY "+t.Table.SQL()+columnList(columns)+" FROM STDIN")
	}
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
// must be one of pg.Session{Apply: true, Fenced: true} that dsn leads to, outside of a transaction.
// Adding a constraint evaluates it, and looks at every row, so that is done with the rights of the table's owner; the
// server itself takes those of the owner when it builds an index (index.c, index_build).
func RepairSchema(ctx context.Context, conn *pgx.Conn, dsn *pg.DSN, link string, list []SchemaDifference) error {
	order := slices.Clone(list)
	// Indexes of partitioned tables make those of the partitions; foreign keys need
	// the keys that they refer to.
	slices.SortStableFunc(order, func(a, b SchemaDifference) int { return repairRank(&a) - repairRank(&b) })
	for _, d := range order {
		for _, sql := range d.statements() {
			// What lets others work waits for transactions of theirs; what does not, must
			// not keep them waiting.
			patience := "5s"
			if strings.Contains(hushed(sql), " CONCURRENTLY ") {
				patience = "0"
			}
			if _, err := conn.Exec(ctx, "SET lock_timeout = '"+patience+"'"); err != nil {
				return pg.Classify(err, "prepare a repair")
			}
			if d.Kind == "constraint" && d.entry.Index == "" && d.State == Missing {
				if err := addConstraint(ctx, conn, dsn, link, &d, sql); err != nil {
					return fmt.Errorf("repair %s %s: %w", d.Kind, d.Name, err)
				}
				continue
			}
			if err := conn.PgConn().Exec(ctx, hushed(sql)).Close(); err != nil && pg.SQLState(err) != "42P07" {
				return fmt.Errorf("repair %s %s: %w", d.Kind, d.Name, pg.Classify(err, "build it as the primary has it"))
			}
		}
	}
	return nil
}

// hushed is SQL that is run as the agent, so that reading its literals runs no code of users. An index whose
// definition has any is built in a transaction, and keeps what is applied waiting.
func hushed(sql string) string {
	if strings.Contains(sql, "'") {
		sql = strings.Replace(sql, " CONCURRENTLY ", " ", 1)
	}
	return rights.Hushed(sql)
}

// addConstraint adds a constraint that no index makes. A superuser's table, too, may have
// code of somebody else at it: the fence keeps that from what comes later in the session.
func addConstraint(ctx context.Context, conn *pgx.Conn, dsn *pg.DSN, link string, d *SchemaDifference, sql string) error {
	settings, err := rights.Ordinary(ctx, dsn, link)
	if err != nil {
		return err
	}
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		var owner string
		err := tx.QueryRow(ctx, `SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = `+sqlname.Literal(d.entry.Table.SQL())+`::pg_catalog.regclass`).Scan(&owner)
		if err != nil {
			return pg.Classify(err, "look at the table")
		}
		r := rights.NewRunner(owner, settings)
		return rights.RunFenced(ctx, tx, r, r.RunDDL(sql), d.entry.Table.String(), "build it as the primary has it")
	})
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
	if len(t.Key) == 0 || !t.written() {
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
