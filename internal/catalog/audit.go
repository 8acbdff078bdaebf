package catalog

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

//go:embed audit.sql
var auditSQL string

// Audit is how a link's audit stands.
type Audit struct {
	Rate  *int64 // bytes a second; nil while nobody has chosen one
	Since time.Time
	Began time.Time // the pass under way, or the last one; zero before the first
	Ended time.Time // of the last pass
}

// AuditItem is what is stored of one thing that is compared.
type AuditItem struct {
	Kind, Name      string
	Bytes           int64
	Divided         bool
	Skipped         string
	Compared, Equal time.Time // zero where never
	Position        string
	Upto            []string
	Begun           time.Time
	Start           string
	Odd             bool
	Differs         json.RawMessage
	More            bool
}

// EnsureAudit makes the tables of the audit in a schema of a release that had none. Run it
// in a session that passes the gate.
func EnsureAudit(ctx context.Context, q Querier) error {
	var have bool
	err := q.QueryRow(ctx, `SELECT to_regclass('twinspan.audit_item') IS NOT NULL`).Scan(&have)
	if err == nil && !have {
		_, err = q.Exec(ctx, auditSQL)
	}
	return pg.Classify(err, "make the tables of the audit")
}

// AuditRate reads the rate that was chosen, nil where none was.
func AuditRate(ctx context.Context, q Querier, id string) (rate *int64, err error) {
	var have bool
	if err := q.QueryRow(ctx, `SELECT to_regclass('twinspan.audit') IS NOT NULL`).Scan(&have); err != nil || !have {
		return nil, pg.Classify(err, "look for the audit")
	}
	err = q.QueryRow(ctx, `SELECT rate FROM twinspan.audit WHERE link = $1::text::uuid`, id).Scan(&rate)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return rate, pg.Classify(err, "read the audit's rate")
}

// SetAuditRate stores it.
func SetAuditRate(ctx context.Context, q Querier, id string, rate int64) error {
	if err := EnsureAudit(ctx, q); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `INSERT INTO twinspan.audit (link, rate) VALUES ($1::text::uuid, $2) ON CONFLICT (link) DO UPDATE SET rate = excluded.rate`, id, rate)
	return pg.Classify(err, "store the audit's rate")
}

// LoadAudit reads how the audit of this epoch stands. What was known in an earlier one is
// of another primary, and is forgotten.
func LoadAudit(ctx context.Context, conn *pgx.Conn, id string, epoch int64) (a Audit, items []AuditItem, err error) {
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := EnsureAudit(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `WITH forgotten AS (DELETE FROM twinspan.audit_item i USING twinspan.audit a WHERE a.link = $1::text::uuid AND i.link = a.link AND a.epoch <> $2)
			INSERT INTO twinspan.audit (link, epoch) VALUES ($1::text::uuid, $2)
			ON CONFLICT (link) DO UPDATE SET epoch = excluded.epoch, since = now(), began = NULL, ended = NULL WHERE audit.epoch <> excluded.epoch`, id, epoch); err != nil {
			return err
		}
		var began, ended *time.Time
		if err := tx.QueryRow(ctx, `SELECT rate, since, began, ended FROM twinspan.audit WHERE link = $1::text::uuid`, id).Scan(&a.Rate, &a.Since, &began, &ended); err != nil {
			return err
		}
		a.Began, a.Ended = timeOf(began), timeOf(ended)
		rows, err := tx.Query(ctx, `SELECT kind, name, bytes, divided, skipped, compared, equal, position, upto, begun, start, odd, differs, more
			FROM twinspan.audit_item WHERE link = $1::text::uuid ORDER BY kind, name`, id)
		if err != nil {
			return err
		}
		items, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (i AuditItem, err error) {
			var compared, equal, begun *time.Time
			var differs []byte
			err = row.Scan(&i.Kind, &i.Name, &i.Bytes, &i.Divided, &i.Skipped, &compared, &equal, &i.Position, &i.Upto, &begun, &i.Start, &i.Odd, &differs, &i.More)
			i.Compared, i.Equal, i.Begun, i.Differs = timeOf(compared), timeOf(equal), timeOf(begun), differs
			return i, err
		})
		return err
	})
	return a, items, pg.Classify(err, "read how the audit stands")
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// storedTime is how a time is stored: nil for none.
func storedTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// StorePass stores when the pass under way began, and the last one ended.
func StorePass(ctx context.Context, q Querier, id string, began, ended time.Time) error {
	_, err := q.Exec(ctx, `UPDATE twinspan.audit SET began = $2, ended = $3 WHERE link = $1::text::uuid`, id, storedTime(began), storedTime(ended))
	return pg.Classify(err, "store how the audit stands")
}

// StoreAuditItems stores items, and forgets those of the names given by kind and name.
func StoreAuditItems(ctx context.Context, conn *pgx.Conn, id string, items []AuditItem, gone [][2]string) error {
	err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		for _, g := range gone {
			if _, err := tx.Exec(ctx, `DELETE FROM twinspan.audit_item WHERE link = $1::text::uuid AND kind = $2 AND name = $3`, id, g[0], g[1]); err != nil {
				return err
			}
		}
		for i := range items {
			if err := storeAuditItem(ctx, tx, id, &items[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return pg.Classify(err, "store how the audit stands")
}

func storeAuditItem(ctx context.Context, tx pgx.Tx, id string, i *AuditItem) error {
	differs := string(i.Differs)
	if differs == "" {
		differs = "[]"
	}
	_, err := tx.Exec(ctx, `INSERT INTO twinspan.audit_item (link, kind, name, bytes, divided, skipped, compared, equal, position, upto, begun, start, odd, differs, more)
		VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::text::jsonb, $15)
		ON CONFLICT (link, kind, name) DO UPDATE SET bytes = excluded.bytes, divided = excluded.divided, skipped = excluded.skipped, compared = excluded.compared,
		equal = excluded.equal, position = excluded.position, upto = excluded.upto, begun = excluded.begun, start = excluded.start, odd = excluded.odd,
		differs = excluded.differs, more = excluded.more`,
		id, i.Kind, i.Name, i.Bytes, i.Divided, i.Skipped, storedTime(i.Compared), storedTime(i.Equal), i.Position, i.Upto, storedTime(i.Begun), i.Start, i.Odd, differs, i.More)
	return err
}
