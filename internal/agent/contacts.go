package agent

import (
	"context"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// contactsInterval is how often links that were made since are looked for.
const contactsInterval = 3 * time.Second

// noteContacts keeps beside each link how its peer is known, until ctx ends: for an agent
// that has lost its directory.
func (a *Agent) noteContacts(ctx context.Context) {
	noted := map[string]catalog.Contact{}
	tick := time.NewTicker(contactsInterval)
	defer tick.Stop()
	for {
		changed := a.book.Changed()
		for _, l := range a.links.all() {
			p, ok := a.book.Get(l.Peer())
			if !ok || p.AgentID != l.PeerAgent() {
				continue
			}
			c := catalog.Contact{Endpoint: p.Endpoint, Fingerprints: p.Fingerprints}
			if old, ok := noted[l.ID()]; ok && old.Endpoint == c.Endpoint && slices.Equal(old.Fingerprints, c.Fingerprints) || !a.lease.Holds(l.Database()) {
				continue
			}
			if err := l.NoteContact(ctx, c); err != nil {
				a.Log.Debug("the peer's keys are not noted beside the link", "link", l.Name(), telemetry.Failure(err))
				continue
			}
			noted[l.ID()] = c
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}
