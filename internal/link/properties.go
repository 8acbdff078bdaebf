package link

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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
	r := l.snapshot()
	var notices []catalog.Notice
	for _, p := range left {
		if slices.ContainsFunc(r.Notices, func(n catalog.Notice) bool { return n.Code == "property_not_carried" && n.Subject == p.Name }) {
			continue
		}
		notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "property_not_carried", Subject: p.Name,
			Text: "the twin's database does not have the primary's " + p.Name + ": " + p.Reason})
	}
	return l.note(ctx, notices)
}

// note stores notices with the link's record.
func (l *Link) note(ctx context.Context, notices []catalog.Notice) error {
	if len(notices) == 0 {
		return nil
	}
	r := l.snapshot()
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return catalog.AddNotices(ctx, conn, &r, notices) })
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.record.Notices = append(l.record.Notices, notices...)
	l.mu.Unlock()
	return nil
}
