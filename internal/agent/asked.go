package agent

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/events"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
)

// What one who may not change anything, or a peer, can add to the record: so many events a
// second, and at once. More are counted. Nobody shall push the past out of it.
const (
	askedPerSecond = 0.5
	askedAtOnce    = 60
	askersKept     = 256
)

// pacer bounds how many events each asker adds. Its zero value is ready.
type pacer struct {
	mu sync.Mutex
	of map[string]*asker
}

type asker struct {
	limit   *rate.Limiter
	skipped int64
}

// allow says whether an asker's event is kept, and how many were not before.
func (p *pacer) allow(who string, now time.Time) (ok bool, skipped int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of[who]
	if a == nil {
		if p.of == nil || len(p.of) >= askersKept {
			p.of = map[string]*asker{} // forgetting gives everybody a little more
		}
		a = &asker{limit: rate.NewLimiter(askedPerSecond, askedAtOnce)}
		p.of[who] = a
	}
	if !a.limit.AllowN(now, 1) {
		a.skipped++
		return false, 0
	}
	skipped, a.skipped = a.skipped, 0
	return true, skipped
}

// asked keeps what somebody asked for who cannot be let write without bound.
func (r *record) asked(who string, e api.Event) {
	ok, skipped := r.pace.allow(who, time.Now())
	if !ok {
		return
	}
	if skipped > 0 {
		e.Text += fmt.Sprintf("; %d more of it before are not in the record", skipped)
	}
	r.note(e)
}

// changes are the requests by which a peer, or its operator, changes something here that is no link.
var changes = map[string]string{
	link.MethodInvert:  "create the link, with this side as primary",
	dbroles.MethodMake: "create roles",
	methodCopyCreate:   "make a copy of its database here",
	methodCopyCancel:   "end a copy of its database",
}

// byPeer keeps that a peer asked for a change. l is nil where it is about none.
func (a *Agent) byPeer(from peer.Peer, method string, l *link.Link, err error) {
	what := cmp.Or(ofLinks[method].Changes, changes[method])
	if what == "" {
		return
	}
	e := events.Operation(api.Actor{Kind: api.ByPeer, Name: from.Name}, method, "peer "+from.Name+" asked to "+what, problem.CodeOf(err))
	e.Peer = from.Name
	if l != nil {
		e = about(l, e)
	}
	a.record.asked("peer "+from.Name, e)
}
