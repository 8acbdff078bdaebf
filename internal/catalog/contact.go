package catalog

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// peerSQL makes the table of the peers' keys where a link of an older release lacks it.
const peerSQL = `CREATE TABLE IF NOT EXISTS twinspan.peer (
    link         uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    endpoint     text NOT NULL,
    fingerprints text[] NOT NULL
)`

// Contact is what the database has of a link's peer, for an agent that has lost its
// directory.
type Contact struct {
	Endpoint     string   // where it is dialled; "" when it is waited for
	Fingerprints []string // of its keys
}

// SetContact stores how a link's peer is known, where that is news.
func SetContact(ctx context.Context, q Querier, link string, c Contact) error {
	have, err := haveTable(ctx, q, "twinspan.peer")
	if err != nil {
		return err
	}
	if have {
		stored, err := contacts(ctx, q)
		if old, ok := stored[link]; err != nil || ok && old.Endpoint == c.Endpoint && slices.Equal(old.Fingerprints, c.Fingerprints) {
			return err
		}
	} else if _, err := q.Exec(ctx, peerSQL+PrivateSQL); err != nil {
		return pg.Classify(err, "make the table of the peers' keys")
	}
	_, err = q.Exec(ctx, `INSERT INTO twinspan.peer (link, endpoint, fingerprints) VALUES ($1::text::uuid, $2, $3)
		ON CONFLICT (link) DO UPDATE SET endpoint = excluded.endpoint, fingerprints = excluded.fingerprints`, link, c.Endpoint, c.Fingerprints)
	return pg.Classify(err, "store the peer's keys")
}

// contacts reads the peers' keys by link.
func contacts(ctx context.Context, q Querier) (map[string]Contact, error) {
	rows, err := q.Query(ctx, `SELECT link::text, endpoint, fingerprints FROM ONLY twinspan.peer`)
	if err != nil {
		return nil, pg.Classify(err, "read the peers' keys")
	}
	known := map[string]Contact{}
	var link string
	var c Contact
	_, err = pgx.ForEachRow(rows, []any{&link, &c.Endpoint, &c.Fingerprints}, func() error {
		known[link] = c
		c.Fingerprints = nil
		return nil
	})
	return known, pg.Classify(err, "read the peers' keys")
}
