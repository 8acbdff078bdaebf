//go:build ui

package test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// oddest is a database whose name a page could take for HTML, at the longest that it may be.
const oddest = `<b>"x"& it is sixty-three bytes long, as long as a name may be.`

// TestBrowser has a browser use the pages of two real agents: test/ui/pages.mjs is what it
// does. This test is the hand that kills and starts agents for it, and looks at the outcome.
func TestBrowser(t *testing.T) {
	modules, pictures := os.Getenv("TWINSPAN_UI_MODULES"), os.Getenv("TWINSPAN_UI_PICTURES")
	if modules == "" || pictures == "" {
		t.Fatal("make ui runs this test: it sets TWINSPAN_UI_MODULES and TWINSPAN_UI_PICTURES")
	}
	if len(oddest) != 63 {
		t.Fatalf("the name has %d bytes", len(oddest))
	}
	at := map[string]string{}
	p := linktest.New(t, linktest.Options{Config: func(name string, c *config.Config) {
		c.API.Listen = fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort())
		at[name] = "https://" + c.API.Listen
	}})
	sides := map[string]*linktest.Side{"a": p.A, "b": p.B}
	for _, database := range []string{"shop", oddest} {
		p.A.Server.CreateDatabase(t, database)
		pgtest.Exec(t, p.A.Server.DSN(database), `CREATE TABLE t (id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, '<i>' || i FROM generate_series(1, 20000) i`)
	}
	tokens := map[string]string{}
	for name, role := range map[string]access.Role{"operator": access.Operator, "reader": access.Reader} {
		token, _, err := access.CreateToken(p.A.Dir.Access(), config.API{}, role, name)
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = token
	}

	hand := http.NewServeMux()
	hand.HandleFunc("POST /kill/{side}", func(_ http.ResponseWriter, r *http.Request) { sides[r.PathValue("side")].Kill() })
	hand.HandleFunc("POST /start/{side}", func(_ http.ResponseWriter, r *http.Request) { sides[r.PathValue("side")].Start() })
	hand.HandleFunc("POST /revoke", func(w http.ResponseWriter, _ *http.Request) {
		list, err := access.ListTokens(p.A.Dir.Access())
		for _, e := range list {
			if err == nil && e.Label == "operator" {
				_, err = access.RevokeToken(p.A.Dir.Access(), e.ID)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: hand}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})

	script, err := filepath.Abs("ui/pages.mjs")
	if err != nil {
		t.Fatal(err)
	}
	browser := exec.CommandContext(t.Context(), "node", script)
	browser.Env = append(os.Environ(), "PAGES="+at["a"], "HAND=http://"+l.Addr().String(), "OPERATOR="+tokens["operator"], "READER="+tokens["reader"], "ODDEST="+oddest,
		"MODULES="+modules, "PICTURES="+pictures)
	browser.Stdout, browser.Stderr = t.Output(), t.Output()
	if err := browser.Run(); err != nil {
		t.Fatalf("the browser: %v", err)
	}

	// What was done by hand of the browser is so: the sides of shop have changed places, and
	// the twins have what their primaries have.
	shop, err := p.B.Client.Link(t.Context(), "shop")
	if err != nil || shop.Role != api.Primary || shop.LastFailover == nil || shop.LastFailover.Type != string(api.Planned) {
		t.Errorf("shop: %+v, %v", shop, err)
	}
	for _, database := range []string{"shop", oddest} {
		pgtest.Eventually(t, time.Minute, func() error {
			return pgtest.DiffError(p.A.Server.DSN(database), p.B.Server.DSN(database))
		})
	}
	page, err := p.A.Client.Events(t.Context(), api.EventQuery{Newest: true, Limit: 1000, Kinds: []string{"operation"}})
	if err != nil {
		t.Fatal(err)
	}
	did := map[string]bool{}
	for _, e := range page.Events {
		if e.By.Name == "operator" && e.By.Via == "token" {
			did[e.Request] = true
		}
	}
	if !did["createLink"] || !did["failOver"] {
		t.Errorf("recorded of the operator: %v", did)
	}
}
