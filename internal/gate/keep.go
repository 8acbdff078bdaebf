package gate

import (
	"context"
	_ "embed"
	"strings"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

//go:embed keep.sql
var keepSQL string

// Release is the statement by which a superuser opens a gate that Keep left.
const Release = `BEGIN READ WRITE; SELECT twinspan.release(); COMMIT`

// Keep lets a gate that refuses outlive its link: what it says does not come from the
// link's record any more, and twinspan.release() takes it away, together with the
// schema twinspan when no link is left in the database.
func Keep(ctx context.Context, q Querier, link, peer, database, address string) error {
	if err := Refuse(ctx, q); err != nil {
		return err
	}
	words := strings.NewReplacer("$link$", sqlname.Literal(link), "$peer$", sqlname.Literal(peer),
		"$database$", sqlname.Literal(database), "$address$", sqlname.Literal(address), "$release$", sqlname.Literal(Release))
	_, err := q.Exec(ctx, words.Replace(keepSQL)+catalog.PrivateSQL)
	return pg.Classify(err, "keep the gate shut")
}
