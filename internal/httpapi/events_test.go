package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
)

// noted are the events about operations, on a line each.
func noted(list []api.Event) string {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %s.%s %s link=%s db=%s peer=%s %s code=%s %s\n", e.By.Via, e.Kind, e.Action, e.Request, e.Link, e.Database, e.Peer, e.Subject, e.Code, e.Details)
	}
	return b.String()
}

// Every request that changes something is told of, with its outcome and without secrets.
func TestOperationsAreKept(t *testing.T) {
	a := sample()
	a.Refusals = map[string]api.Error{"Suspend": {Kind: "conflict", Code: "link_busy", Text: "no"}}
	s := serve(t, a, false)
	c := dial(t, client.Dial{Socket: s.dir.Socket()})
	ctx := t.Context()
	c.Links(ctx)
	c.Events(ctx, api.EventQuery{})
	c.CreateLink(ctx, api.CreateLink{Name: "new", Database: "d", Peer: "b"})
	c.Suspend(ctx, "sales")
	c.Failover(ctx, `we"ird/na me`, api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	c.SetLink(ctx, "sales", api.SetLink{OnConflict: "never"}) // which the schema refuses
	c.Join(ctx, api.JoinRequest{Token: "tok-hunter2"})
	c.AddPeer(ctx, api.AddPeer{Name: "c", Endpoint: "c:5022", Certificate: "PEM hunter2"})
	c.RemovePeer(ctx, "c", true)
	c.DeleteLink(ctx, "sales", false)
	raw(t, s, "POST", "/v1/nothing", "{}")
	raw(t, s, "POST", "/v1/links", "no JSON hunter2")
	got := noted(a.Noted())
	want := `socket operation.done createLink link=new db=d peer=b  code= {"name":"new","database":"d","peer":"b"
socket operation.failed suspendLink link=sales db= peer=  code=link_busy 
socket operation.done failOver link=we"ird/na me db= peer=  code= {"type":"forced","acceptDataLoss":true}
socket operation.failed setLink link=sales db= peer=  code=request_invalid 
socket operation.done join link= db= peer=  code= 
socket operation.done addPeer link= db= peer=c  code= 
socket operation.done removePeer link= db= peer=c  code= {"force":true}
socket operation.done deleteLink link=sales db= peer=  code= {"force":false}
socket operation.failed createLink link= db= peer=  code=request_invalid 
`
	lines, wants := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range wants {
		if i >= len(lines) || !strings.HasPrefix(lines[i], wants[i]) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
			break
		}
	}
	if len(lines) != len(wants) || strings.Contains(fmt.Sprintf("%+v", a.Noted()), "hunter2") {
		t.Errorf("%+v", a.Noted())
	}
}

func TestOperationsTellWhoAsked(t *testing.T) {
	a := sample()
	s := serve(t, a, true)
	made, e, err := access.CreateToken(s.dir.Access(), config.API{}, access.Reader, "dash board")
	if err != nil || e.Label == "" {
		t.Fatal(err)
	}
	operator := dial(t, client.Dial{URL: "https://" + s.addr, Token: s.tokens.Operator})
	if _, err := operator.Resume(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	_, err = dial(t, client.Dial{URL: "https://" + s.addr, Token: made}).DeleteLink(t.Context(), "sales", true)
	wantError(t, err, http.StatusForbidden, "token_reader")
	stranger := dial(t, client.Dial{URL: "https://" + s.addr, Token: strings.Replace(made, "twinspan.", "twinspan.x", 1)})
	_, err = stranger.DeleteLink(t.Context(), "sales", true)
	wantError(t, err, http.StatusUnauthorized, "token_unknown")
	list := a.Noted()
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	if by := list[0].By; by.Kind != api.ByOperator || by.Via != "token" || by.Role != "operator" || by.Address != "127.0.0.1" || len(by.Name) != 8 || list[0].Action != "done" {
		t.Errorf("%+v", list[0])
	}
	if e := list[1]; e.By != (api.Actor{Kind: api.ByOperator, Via: "token", Role: "reader", Name: "dash board", Address: "127.0.0.1"}) ||
		e.Request != "deleteLink" || e.Link != "sales" || e.Action != "failed" || e.Code != "token_reader" {
		t.Errorf("%+v", e)
	}
	if strings.Contains(fmt.Sprintf("%+v", list), made) || strings.Contains(fmt.Sprintf("%+v", list), s.tokens.Operator) {
		t.Error("a token is in the record")
	}
}
