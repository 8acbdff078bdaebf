package httpapi

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/door"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// The bounds of connections over TCP on which no token was shown yet: all of them, those
// of one address, and how long one may stay when others need its place.
const (
	maxStrangers   = 128
	maxOfHost      = 32
	strangersGrace = 2 * time.Second
)

// doorListener lets in no more strangers than there are places.
type doorListener struct {
	net.Listener
	door *door.Door
	log  *slog.Logger
	told time.Time // when refusals were last logged; Accept is called by one goroutine
}

func newDoorListener(l net.Listener, log *slog.Logger) *doorListener {
	return &doorListener{Listener: l, door: &door.Door{Places: maxStrangers, PerHost: maxOfHost, Grace: strangersGrace}, log: log}
}

// crowdEvery is how often a crowd is spoken of.
const crowdEvery = 10 * time.Second

// Accept implements net.Listener.
func (l *doorListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		before := l.door.Refused()
		c, ok := l.door.Conn(conn.(*net.TCPConn), time.Now())
		if refused := l.door.Refused(); refused > before && time.Since(l.told) > crowdEvery {
			l.told = time.Now()
			l.log.Warn("connections turned away: strangers crowd the API", telemetry.Address, conn.RemoteAddr().String(), "so_far", refused)
		}
		if ok {
			return c, nil
		}
	}
}

type connKey struct{}

// withConn lets a request find its connection.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*tls.Conn); ok {
		if c, ok := t.NetConn().(*door.Conn); ok {
			return context.WithValue(ctx, connKey{}, c)
		}
	}
	return ctx
}

// mayReadRows says whether who asks may see values of rows: over the Unix socket, or
// with an operator's token.
func mayReadRows(ctx context.Context) bool {
	e, over := ctx.Value(entryKey{}).(access.Entry)
	return !over || e.Role == access.Operator
}

// errReader refuses changes.
var errReader = problem.New(problem.Unauthorised, "token_reader", "the token may look, not change").
	WithHint("use the operator's token")

// errRows refuses values of rows.
var errRows = problem.New(problem.Unauthorised, "token_reader", "the token may look, but not at values of rows").
	WithHint("use an operator's token")

// withoutRows leaves out of a verification what a reader's token may not see: keys,
// values and hashes of rows, and statements that hold them.
func withoutRows(v api.Verification) api.Verification {
	kept := make([]api.Difference, 0, len(v.Differences))
	for _, d := range v.Differences {
		if d.Kind == "row" {
			d.Key, d.Values, d.Hash, d.Repair = nil, nil, "", ""
		}
		kept = append(kept, d)
	}
	v.Differences = kept
	return v
}

// guarded asks for a token. /healthz and the paths of roles are open, for load balancers
// have none, and the description of the interface, which says nothing of the agent; each host may ask them so often. refused is told of a reader that would change
// something.
func guarded(guard *access.Guard, next http.Handler, refused func(*http.Request)) http.Handler {
	asks := &door.Pace{PerSecond: asksPerSecond, AtOnce: asksAtOnce}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOpen(r.URL.Path) {
			if !asks.Allow(r.RemoteAddr, time.Now()) {
				w.Header().Set("Retry-After", "1")
				refuse(w, problem.New(problem.Resource, "asked_too_often", "this host asks too often").
					WithHint("ask once a second"), http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		entry, known := guard.Find(token)
		if !strings.EqualFold(scheme, "Bearer") || !known {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, problem.New(problem.Unauthorised, "token_unknown", "the request has no token that is known").
				WithHint("send the header Authorization: Bearer TOKEN; twinspan api token create makes one"), http.StatusUnauthorized)
			return
		}
		if entry.Role == access.Operator || looksOnly(r) {
			welcome(r)
		}
		admitted(entry, next, refused).ServeHTTP(w, r)
	})
}

// welcome makes the connection of a request one of somebody known.
func welcome(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*door.Conn); ok {
		c.Visitor.Leave() // no stranger any more
	}
}

// admitted answers the holder of a token. A reader may look; refused is told when it would
// do more.
func admitted(entry access.Entry, next http.Handler, refused func(*http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), entryKey{}, entry))
		if entry.Role != access.Operator && !looksOnly(r) {
			refused(r)
			refuse(w, errReader, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
