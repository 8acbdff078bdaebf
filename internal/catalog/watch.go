package catalog

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Watch is what a secondary knows of differences of schema.
type Watch struct {
	Compared bool    // the schemas were compared since the copy
	Known    []Drift // what may differ
	Found    []Drift // what stopped the link the last time
}

// Drift is an object of the schema that differs between the sides, with what each
// of them has of it.
type Drift struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	State     string `json:"state"` // missing, extra, differs; on the secondary
	Primary   string `json:"primary,omitempty"`
	Secondary string `json:"secondary,omitempty"`
	Accepted  bool   `json:"accepted,omitempty"` // somebody said that it shall be so
}

// Same says whether two drifts are the same difference, in the same words.
func (d Drift) Same(other Drift) bool {
	return d.Kind == other.Kind && d.Name == other.Name && d.State == other.State && d.Primary == other.Primary && d.Secondary == other.Secondary
}

// GetWatch reads a link's. Before it was stored it is the default.
func GetWatch(ctx context.Context, q Querier, id string) (Watch, error) {
	var w Watch
	var known, found []byte
	err := q.QueryRow(ctx, `SELECT compared, known, found FROM twinspan.schema_watch WHERE link = $1::text::uuid`, id).
		Scan(&w.Compared, &known, &found)
	if errors.Is(err, pgx.ErrNoRows) {
		return w, nil
	}
	if err == nil {
		err = errors.Join(json.Unmarshal(known, &w.Known), json.Unmarshal(found, &w.Found))
	}
	return w, pg.Classify(err, "read what is known of the schema's differences")
}

// StoreWatch stores a link's.
func StoreWatch(ctx context.Context, q Querier, id string, w Watch) error {
	known, err := json.Marshal(append([]Drift{}, w.Known...))
	if err != nil {
		return err
	}
	found, err := json.Marshal(append([]Drift{}, w.Found...))
	if err != nil {
		return err
	}
	_, err = q.Exec(ctx, `INSERT INTO twinspan.schema_watch (link, compared, known, found)
		VALUES ($1::text::uuid, $2, $3::text::jsonb, $4::text::jsonb)
		ON CONFLICT (link) DO UPDATE SET compared = excluded.compared, known = excluded.known, found = excluded.found`,
		id, w.Compared, string(known), string(found))
	return pg.Classify(err, "store what is known of the schema's differences")
}
