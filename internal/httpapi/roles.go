package httpapi

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// Role paths tell load balancers and service discovery, which have no token, where a
// link's primary and its twin are now: GET /links/NAME/primary, /secondary and /health, as
// Patroni has them. The status is the answer: 200 for yes, 503 for no, for a link that
// does not exist and while the agent has no connection to its server; so a stranger
// learns no names. ?lag=10s makes a twin that is further behind, or for which that is not
// known, a no.

// rolePrefix begins the paths of roles.
const rolePrefix = "/links/"

// How often one host may ask without a token.
const (
	asksPerSecond = 20
	asksAtOnce    = 60
)

// isOpen says whether a path is answered without a token: what says nothing of the agent, and the paths of roles.
func isOpen(of string) bool {
	return of == "/healthz" || of == "/docs" || of == "/openapi.json" || strings.HasPrefix(of, rolePrefix) && path.Clean(of) == of
}

// atRole answers whether this side has a role of the link now.
func (s *Server) atRole(has func(l api.Link, q *http.Request) (bool, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		yes := false
		l, err := s.Agent.Link(r.Context(), r.PathValue("name"))
		if err == nil {
			var info api.Agent
			if info, err = s.Agent.Info(r.Context()); err == nil && info.Postgres.Connected {
				if yes, err = has(l, r); err != nil {
					refuse(w, err, http.StatusBadRequest)
					return
				}
			}
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err != nil || !yes {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "no")
			return
		}
		fmt.Fprintln(w, "yes")
	}
}

// roles puts the paths of roles on a mux.
func (s *Server) roles(mux *http.ServeMux) {
	mux.HandleFunc("GET "+rolePrefix+"{name}/primary", s.atRole(isPrimary))
	mux.HandleFunc("GET "+rolePrefix+"{name}/secondary", s.atRole(isSecondary))
	mux.HandleFunc("GET "+rolePrefix+"{name}/health", s.atRole(func(l api.Link, _ *http.Request) (bool, error) {
		return l.Health != api.Unhealthy, nil
	}))
}

// isPrimary says whether applications may write here. While the sides change places they
// may until the primary is fenced: their connections wait, and need not be cut.
func isPrimary(l api.Link, _ *http.Request) (bool, error) {
	return l.Role == api.Primary && l.Phase != api.Fenced, nil
}

// isSecondary says whether the twin can be read: it is whole, at one state of the primary,
// and no further behind than is asked for.
func isSecondary(l api.Link, r *http.Request) (bool, error) {
	readable := []api.Phase{api.CatchingUp, api.Replicating, api.FailingOver, api.Suspended}
	is := l.Role == api.Secondary && slices.Contains(readable, l.Phase)
	text := r.URL.Query().Get("lag")
	if text == "" {
		return is, nil
	}
	most, err := time.ParseDuration(text)
	if err != nil || most < 0 {
		return false, problem.New(problem.Invalid, "request_invalid", "lag is not a duration like 10s")
	}
	return is && l.Lag.Seconds != nil && *l.Lag.Seconds <= most.Seconds(), nil
}
