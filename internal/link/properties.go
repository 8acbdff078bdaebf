package link

import (
	"context"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/schema"
)

// setProperties gives the twin what belongs to the primary's database as a whole,
// and tells the link's owner what its server refused.
func (l *Link) setProperties(ctx context.Context, structure *schema.Target) error {
	left, err := structure.SetProperties(ctx)
	if err != nil {
		return err
	}
	r := l.side.Record()
	var notices []catalog.Notice
	for _, p := range left {
		if slices.ContainsFunc(r.Notices, func(n catalog.Notice) bool { return n.Code == "property_not_carried" && n.Subject == p.Name }) {
			continue
		}
		notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "property_not_carried", Subject: p.Name,
			Text: "the twin's database does not have the primary's " + p.Name + ": " + p.Reason})
	}
	return l.side.Note(ctx, notices)
}
