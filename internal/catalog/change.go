package catalog

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
)

// StoppedChange is the schema change at which a secondary's stream stands.
type StoppedChange struct {
	At      lsn.LSN // where the commit record of its transaction begins, on the primary
	Place   int     // among the schema changes of the transaction, from 1
	Tag     string
	Subject string
	Skip    bool // somebody said that it shall be left out
}

// replaySQL makes the tables of replaying where a link of an older release lacks them.
const replaySQL = `CREATE TABLE IF NOT EXISTS twinspan.consent (
    link uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    code text NOT NULL,
    at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (link, code)
);
CREATE TABLE IF NOT EXISTS twinspan.stopped_change (
    link    uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    at      pg_lsn NOT NULL,
    place   integer NOT NULL,
    tag     text NOT NULL,
    subject text NOT NULL,
    skip    boolean NOT NULL DEFAULT false
)`

func ensureReplay(ctx context.Context, q Querier) error {
	have, err := haveTable(ctx, q, "twinspan.stopped_change")
	if err != nil || have {
		return err
	}
	_, err = q.Exec(ctx, replaySQL+PrivateSQL)
	return pg.Classify(err, "make the tables of replaying")
}

func haveTable(ctx context.Context, q Querier, name string) (have bool, err error) {
	err = q.QueryRow(ctx, `SELECT pg_catalog.to_regclass($1::text) IS NOT NULL`, name).Scan(&have)
	return have, pg.Classify(err, "look for "+name)
}

// Consents lists what the operator of this side agreed to for a link.
func Consents(ctx context.Context, q Querier, id string) ([]string, error) {
	if have, err := haveTable(ctx, q, "twinspan.consent"); err != nil || !have {
		return nil, err
	}
	rows, err := q.Query(ctx, `SELECT code FROM twinspan.consent WHERE link = $1::text::uuid ORDER BY 1`, id)
	if err != nil {
		return nil, pg.Classify(err, "read what was agreed to")
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, pg.Classify(err, "read what was agreed to")
}

// SetConsent stores an agreement, or takes it back.
func SetConsent(ctx context.Context, q Querier, id, code string, given bool) error {
	if err := ensureReplay(ctx, q); err != nil {
		return err
	}
	sql := `INSERT INTO twinspan.consent (link, code) VALUES ($1::text::uuid, $2) ON CONFLICT DO NOTHING`
	if !given {
		sql = `DELETE FROM twinspan.consent WHERE link = $1::text::uuid AND code = $2`
	}
	_, err := q.Exec(ctx, sql, id, code)
	return pg.Classify(err, "store what was agreed to")
}

// GetStopped reads the change at which a link's stream stands, nil where it was at none.
func GetStopped(ctx context.Context, q Querier, id string) (*StoppedChange, error) {
	if have, err := haveTable(ctx, q, "twinspan.stopped_change"); err != nil || !have {
		return nil, err
	}
	var s StoppedChange
	err := q.QueryRow(ctx, `SELECT at::text, place, tag, subject, skip FROM twinspan.stopped_change WHERE link = $1::text::uuid`, id).
		Scan(&s.At, &s.Place, &s.Tag, &s.Subject, &s.Skip)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, pg.Classify(err, "read the change at which the stream stands")
	}
	return &s, nil
}

// StoreStopped notes at which change a link's stream stands; nil says at none.
func StoreStopped(ctx context.Context, q Querier, id string, s *StoppedChange) error {
	if err := ensureReplay(ctx, q); err != nil {
		return err
	}
	if s == nil {
		_, err := q.Exec(ctx, `DELETE FROM twinspan.stopped_change WHERE link = $1::text::uuid`, id)
		return pg.Classify(err, "forget the change at which the stream stood")
	}
	_, err := q.Exec(ctx, `INSERT INTO twinspan.stopped_change (link, at, place, tag, subject, skip) VALUES ($1::text::uuid, $2::text::pg_lsn, $3, $4, $5, $6)
		ON CONFLICT (link) DO UPDATE SET at = excluded.at, place = excluded.place, tag = excluded.tag, subject = excluded.subject, skip = excluded.skip`,
		id, s.At.String(), s.Place, s.Tag, s.Subject, s.Skip)
	return pg.Classify(err, "note the change at which the stream stands")
}
