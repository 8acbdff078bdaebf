package agent

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
)

// Over TCP pages are for holders of tokens: what somebody does is recorded as the token's,
// a reader may look, and a token that is revoked ends its sessions at once.
func TestPagesAreForHoldersOfTokens(t *testing.T) {
	base, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := config.Dir(base)
	if err := dir.Create(); err != nil {
		t.Fatal(err)
	}
	tokens, err := access.Create(dir.Access(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	inner := &agenttest.Agent{Views: map[string][]api.Link{"sales": {{Name: "sales", Role: api.Primary, Phase: api.Replicating}}}}
	shell := &Agent{Dir: dir, Version: "1.2.3", Log: quiet}
	ready := make(chan struct{})
	server := &httpapi.Server{Agent: inner, Dir: dir, API: config.API{Listen: address}, Version: "1.2.3", Log: quiet, Listening: func() { close(ready) }, Face: shell.face}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(t.Context()) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	browser := &http.Client{Jar: jar, Transport: transport}
	ask := func(method, path string, form url.Values) (status int, text, led string) {
		t.Helper()
		r, err := http.NewRequest(method, "https://"+address+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body), answer.Request.URL.RequestURI()
	}

	if _, _, led := ask("GET", "/", nil); led != "/ui/sign-in" {
		t.Errorf("the bare address leads to %s", led)
	}
	if status, _, _ := ask("GET", "/v1/links", nil); status != http.StatusUnauthorized {
		t.Errorf("the REST interface without a token: %d", status)
	}
	if status, _, _ := ask("POST", "/ui/sign-in", url.Values{"secret": {tokens.Reader}}); status != http.StatusOK {
		t.Errorf("a reader signs in: %d", status)
	}
	if status, _, _ := ask("POST", "/ui/links/sales/do", url.Values{"act": {"suspend"}}); status != http.StatusForbidden {
		t.Errorf("a reader acts: %d", status)
	}
	ask("POST", "/ui/sign-in", url.Values{"secret": {tokens.Operator}})
	if status, text, _ := ask("POST", "/ui/links/sales/do", url.Values{"act": {"suspend"}}); status != http.StatusOK || strings.Contains(text, tokens.Operator) {
		t.Errorf("an operator acts: %d", status)
	}
	list, err := access.ListTokens(dir.Access())
	if err != nil {
		t.Fatal(err)
	}
	did := inner.Noted()
	if len(did) != 1 || did[0].Request != "suspendLink" || did[0].By.Name != list[0].ID || did[0].By.Via != "token" || did[0].By.Address != "127.0.0.1" {
		t.Errorf("recorded as %+v", did)
	}
	// The session alone opens nothing but pages.
	if status, _, _ := ask("POST", "/v1/links/sales/suspend", nil); status != http.StatusUnauthorized {
		t.Errorf("the REST interface with a session: %d", status)
	}
	if _, err := access.RevokeToken(dir.Access(), list[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, _, led := ask("GET", "/ui/links/sales", nil); !strings.HasPrefix(led, "/ui/sign-in") {
		t.Errorf("a revoked token sees %s", led)
	}
}
