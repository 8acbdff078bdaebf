package httpapi

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
)

// Load balancers have no token. They learn where a link's primary and its twin are, and
// nothing of links that do not exist.
func TestRolesAreToldWithoutAToken(t *testing.T) {
	twin := func(phase api.Phase, lag *float64) api.Link {
		return api.Link{Role: api.Secondary, Phase: phase, Health: api.Degraded, Lag: api.Lag{Seconds: lag}}
	}
	writes := func(phase api.Phase) api.Link {
		return api.Link{Role: api.Primary, Phase: phase, Health: api.Unhealthy}
	}
	type ask struct {
		path string
		want int
	}
	for name, c := range map[string]struct {
		link api.Link
		asks []ask
	}{
		"primary":        {writes(api.Replicating), []ask{{"/primary", 200}, {"/secondary", 503}, {"/health", 503}}},
		"broken primary": {writes(api.Broken), []ask{{"/primary", 200}}},
		"changing":       {writes(api.FailingOver), []ask{{"/primary", 200}}},
		"fenced":         {writes(api.Fenced), []ask{{"/primary", 503}, {"/secondary", 503}}},
		"twin": {twin(api.Replicating, new(2.0)), []ask{{"/primary", 503}, {"/secondary", 200}, {"/health", 200}, {"/secondary?lag=2s", 200},
			{"/secondary?lag=1999ms", 503}, {"/secondary?lag=x", 400}, {"/secondary?lag=-1s", 400}}},
		"nothing known": {twin(api.CatchingUp, nil), []ask{{"/secondary", 200}, {"/secondary?lag=24h", 503}}},
		"half copied":   {twin(api.Seeding, nil), []ask{{"/secondary", 503}}},
		"left behind":   {twin(api.Fenced, nil), []ask{{"/secondary", 503}}},
		"broken twin":   {twin(api.Broken, new(0.0)), []ask{{"/secondary", 503}}},
	} {
		t.Run(name, func(t *testing.T) {
			agent := &agenttest.Agent{Self: api.Agent{Postgres: api.Postgres{Connected: true}}, Views: map[string][]api.Link{"x": {c.link}}}
			s := serve(t, agent, true)
			for _, a := range append(c.asks, ask{"/other", 404}, ask{"/../../v1/links", 401}, ask{"/..%2f..%2fv1%2flinks", 401}) {
				if got := status(t, s.addr, "/links/x"+a.path); got != a.want {
					t.Errorf("%s: %d", a.path, got)
				}
			}
			if got := status(t, s.addr, "/links/unknown/primary"); got != 503 {
				t.Errorf("of no link: %d", got)
			}
			if got := status(t, s.addr, "/v1/links/x"); got != http.StatusUnauthorized {
				t.Errorf("all of the link: %d", got)
			}
		})
	}

	away := &agenttest.Agent{Views: map[string][]api.Link{"x": {writes(api.Replicating)}}}
	if got := status(t, serve(t, away, true).addr, "/links/x/primary"); got != 503 {
		t.Errorf("without a server: %d", got)
	}
}

func TestNoHostAsksWithoutEnd(t *testing.T) {
	h := guarded(nil, http.NotFoundHandler(), nil)
	answer := &httptest.ResponseRecorder{}
	for range 100 * asksAtOnce { // however slow the machine is
		answer = httptest.NewRecorder()
		if h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/links/sales/primary", nil)); answer.Code != http.StatusNotFound {
			break
		}
	}
	if answer.Code != http.StatusTooManyRequests || answer.Header().Get("Retry-After") == "" {
		t.Errorf("the last of many: %d", answer.Code)
	}
}

var insecure = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

func status(t *testing.T, addr, path string) int {
	t.Helper()
	answer, err := insecure.Get("https://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}
