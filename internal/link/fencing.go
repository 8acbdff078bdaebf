package link

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
)

// quietSubscriptions disables the subscriptions of a side that accepts no writes, and
// tells the link's owner.
func (l *Link) quietSubscriptions(ctx context.Context, conn *pgx.Conn) error {
	names, err := gate.Unsubscribe(ctx, conn)
	if len(names) == 0 {
		return err
	}
	l.log.Warn("subscriptions disabled, for they write past the gate", "subscriptions", strings.Join(names, ", "))
	var notices []catalog.Notice
	for _, name := range names {
		notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: "subscription_disabled", Subject: name,
			Text: fmt.Sprintf("the subscription %s was disabled: it wrote to a database that accepts no writes; enable it again when this side is primary", name)})
	}
	// Later, for the fence may be about to be stored in the session in which that is noted.
	l.asides.Go(func() {
		if err := l.side.Note(l.life, notices); err != nil {
			l.log.Warn("cannot note what was disabled", "err", err)
		}
	})
	return err
}

// refit makes a secondary's gate what this agent makes of it, which may be a newer one
// than the one that made it, and puts aside what would fire at what is applied.
func (l *Link) refit(ctx context.Context) error {
	return l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		// At once, where a copy has just brought event triggers: they would fire at what makes the gate.
		if err := gate.PutAside(ctx, conn); err != nil {
			return err
		}
		if err := gate.Shut(ctx, conn); err != nil {
			return err
		}
		if err := gate.ShutTables(ctx, conn); err != nil {
			return err
		}
		return gate.PutAside(ctx, conn)
	})
}

// putBack gives users' triggers the modes that they had, before this side takes writes.
func (l *Link) putBack(ctx context.Context) error {
	return l.withGateSession(ctx, gate.PutBack)
}
