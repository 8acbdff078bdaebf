package httpapi

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
)

func TestTokensBeginAndEndAtOnce(t *testing.T) {
	s := serve(t, sample(), true)
	token, e, err := access.CreateToken(s.dir.Access(), config.API{}, access.Reader, "x")
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, client.Dial{URL: "https://" + s.addr, Token: token})
	if _, err := c.Links(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := access.RevokeToken(s.dir.Access(), e.ID); err != nil {
		t.Fatal(err)
	}
	// The connection that it opened is still there.
	_, err = c.Links(t.Context())
	wantError(t, err, http.StatusUnauthorized, "token_unknown")
}

// No value of a row reaches a reader, over whatever path.
func TestReaderSeesNoRows(t *testing.T) {
	const secret = "row-value-of-somebody"
	agent := sample()
	text := secret
	agent.Verifications = []api.Verification{{Link: "sales", State: api.Different, Rows: 7, Differences: []api.Difference{
		{Kind: "row", Object: "public.t", State: "differs", Key: []api.Value{{Column: "id", Value: secret}}, Columns: []string{"name"},
			Hash: secret, Values: []api.Pair{{Column: "name", Primary: &text}}, Repair: "UPDATE " + secret},
		{Kind: "index", Object: "public.i", State: "missing", Primary: "CREATE INDEX i"},
	}}}
	agent.Pages = []api.LostPage{{Transactions: []api.LostTransaction{{Number: 1, Changes: []api.LostChange{{Kind: "delete", SQL: secret}}}}}}
	s := serve(t, agent, true)
	reader := dial(t, client.Dial{URL: "https://" + s.addr, Token: s.tokens.Reader})
	v, err := reader.Verification(t.Context(), "sales")
	if err != nil || len(v.Differences) != 2 || v.Differences[0].Object != "public.t" || v.Differences[0].Columns[0] != "name" || v.Differences[1].Primary != "CREATE INDEX i" {
		t.Errorf("%+v, %v", v, err)
	}
	if all, _ := json.Marshal(v); strings.Contains(string(all), secret) {
		t.Errorf("the reader was told %s", all)
	}
	_, err = reader.LostPage(t.Context(), "sales", 2, 0, true)
	wantError(t, err, http.StatusForbidden, "token_reader")
	for _, d := range []client.Dial{{URL: "https://" + s.addr, Token: s.tokens.Operator}, {Socket: s.dir.Socket()}} {
		c := dial(t, d)
		v, err := c.Verification(t.Context(), "sales")
		if err != nil || v.Differences[0].Key[0].Value != secret {
			t.Errorf("an operator was told %+v, %v", v, err)
		}
		if page, err := c.LostPage(t.Context(), "sales", 2, 0, true); err != nil || len(page.Transactions) != 1 {
			t.Errorf("an operator was told %+v, %v", page, err)
		}
	}
}

// Connections without a token, each with a request behind it, keep no operator out.
func TestCrowdAtTheAPIKeepsNobodyOut(t *testing.T) {
	s := serve(t, sample(), true)
	for i := range maxStrangers + maxOfHost {
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			continue // turned away
		}
		t.Cleanup(func() { conn.Close() })
		if i%2 == 0 { // the others say nothing
			fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			http.ReadResponse(bufio.NewReader(conn), nil)
		}
	}
	await(t, "an operator to be let in", func() bool {
		c, err := client.New(client.Dial{URL: "https://" + s.addr, Token: s.tokens.Operator})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Links(t.Context())
		return err == nil
	})
}

// await polls for a condition.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}
