package agent

import (
	"net/http"
	"path/filepath"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/web"
)

// sessionsFile is the file beside the tokens that keeps the sessions of browsers.
const sessionsFile = "sessions"

// face makes what browsers are shown at the address of the API.
func (a *Agent) face(in *httpapi.Inside) (http.Handler, error) {
	return web.New(web.Config{
		Entrance: byToken{in}, Version: a.Version, Log: a.Log,
		Cookie: "__Host-twinspan", Secure: true, Sessions: filepath.Join(a.Dir.Access(), sessionsFile),
	})
}

// byToken lets in whoever has a token, as its holder, and no longer than it is known.
type byToken struct{ in *httpapi.Inside }

// Enter implements web.Entrance.
func (b byToken) Enter(secret string) (web.Visitor, bool) {
	e, known := b.in.Find(secret)
	return visitor(e), known
}

// Again implements web.Entrance.
func (b byToken) Again(key string) (web.Visitor, bool) {
	e, known := b.in.Named(key)
	return visitor(e), known
}

func visitor(e access.Entry) web.Visitor {
	name := e.Label
	if name == "" {
		name = e.ID
	}
	return web.Visitor{Key: e.Hash(), Name: name, Operator: e.Role == access.Operator}
}

// Client implements web.Entrance.
func (b byToken) Client(v web.Visitor, address string) (*client.Client, error) {
	e, known := b.in.Named(v.Key)
	if !known { // it was revoked since it was looked at
		return nil, problem.New(problem.Unauthorised, "token_unknown", "the token is known no more")
	}
	return client.New(client.Dial{Inside: b.in.As(e, address)})
}

// Serves implements web.Entrance.
func (b byToken) Serves(host string) bool { return b.in.Serves(host) }

// Welcome implements web.Entrance.
func (b byToken) Welcome(r *http.Request) { b.in.Welcome(r) }
