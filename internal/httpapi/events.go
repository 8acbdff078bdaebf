package httpapi

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/events"
)

// eventsPage is the shape of a request for events.
type eventsPage struct {
	After  int64     `query:"after" minimum:"0" doc:"Events behind this number: the next of the page before"`
	Newest bool      `query:"newest" doc:"The newest of those that fit, not the oldest"`
	Limit  int       `query:"limit" minimum:"0" maximum:"1000" doc:"The most events of a page; 0 for a default"`
	Link   string    `query:"link" maxLength:"63" doc:"Events of this link"`
	Peer   string    `query:"peer" maxLength:"63" doc:"Events of this peer"`
	Kind   []string  `query:"kind" maxItems:"50" doc:"Events of these kinds, parted by commas: a kind, or one of its actions, as problem.began"`
	Since  time.Time `query:"since" doc:"Events that are not older"`
	Until  time.Time `query:"until" doc:"Events that are older"`
	Wait   int       `query:"wait" minimum:"0" maximum:"60" doc:"How many seconds to wait for an event where there is none"`
}

func (q *eventsPage) query() api.EventQuery {
	known := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return api.EventQuery{After: q.After, Newest: q.Newest, Limit: q.Limit, Link: q.Link, Peer: q.Peer, Kinds: q.Kind,
		Since: known(q.Since), Until: known(q.Until), Wait: q.Wait}
}

// events puts the record of events on the interface.
func (r *routes) events() {
	add(r, "events", http.MethodGet, "/v1/events", "listEvents", "List what happened, as this agent saw it; with wait, once something has",
		func(ctx context.Context, in *eventsPage) (api.EventPage, error) {
			p, err := r.agent.Events(ctx, in.query())
			p.Events = list(p.Events)
			return p, err
		})
}

// operation is a request that changes something, as far as it is known.
type operation struct {
	id, object, details, code string
	about                     api.Event // link, database and peer
}

type operationKey struct{}

// entryKey finds the token of a request over TCP.
type entryKey struct{}

// noteOperation notes what a request is and how it ended, where it changes something.
func noteOperation(ctx context.Context, id string, in any, err error) {
	o, has := ctx.Value(operationKey{}).(*operation)
	if !has {
		return
	}
	o.id = id
	if err != nil {
		o.code = failed(err).Code
	}
	o.about, o.object, o.details = objectOf(in)
}

// objectOf says what a request is about. Its parameters are repeated only where none of
// them can be a secret: types are named here for that.
func objectOf(in any) (about api.Event, object, details string) {
	var shown any
	switch in := in.(type) {
	case *with[api.CreateLink]:
		about, shown = api.Event{Link: in.Body.Name, Database: in.Body.Database, Peer: in.Body.Peer}, in.Body
	case *with[api.CopyDatabase]:
		about, object, shown = api.Event{Database: in.Body.Database, Peer: in.Body.Peer}, in.Body.Name, in.Body
	case *with[api.RestoreDatabase]: // which may hold the key of a repository
		about, object = api.Event{Database: in.Body.Database, Peer: in.Body.Peer}, in.Body.Name
	case *with[api.AddPeer]:
		about = api.Event{Peer: in.Body.Name}
	case *with[api.FailoversRequest]:
		object, shown = strings.Join(in.Body.Links, ", "), in.Body
	case *with[api.BackupRequest]:
		shown = in.Body
	case *with[api.SetInstance]:
		shown = in.Body
	case *namedWith[api.FailoverRequest]:
		shown = in.Body
	case *namedWith[api.SetLink]:
		shown = in.Body
	case *namedWith[api.Rejoin]:
		shown = in.Body
	case *namedWith[api.LargeObjectsRequest]:
		shown = in.Body
	case *namedWith[api.BringRoles]:
		shown = in.Body
	case *namedWith[api.PeerGrants]:
		shown = in.Body
	case *namedWith[api.SetPeer]:
		shown = in.Body
	case *verify:
		shown = in.Body
	case *remove:
		shown = map[string]bool{"force": in.Force}
	case *removePeer:
		shown = map[string]bool{"force": in.Force}
	case *discard:
		shown = map[string]int64{"epoch": in.Epoch}
	}
	if shown != nil {
		if text, err := json.Marshal(shown); err == nil {
			details = string(text)
		}
	}
	return about, object, details
}

// statusWriter knows the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what is below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func looksOnly(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// recorded has the agent keep every request that changes something, with the outcome.
func recorded(agent Agent, described huma.API, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if looksOnly(r) {
			next.ServeHTTP(w, r)
			return
		}
		o := &operation{}
		r = r.WithContext(context.WithValue(r.Context(), operationKey{}, o))
		answer := &statusWriter{ResponseWriter: w}
		done := false
		defer func() {
			if o.code == "" && (!done || answer.status >= http.StatusBadRequest) {
				o.code = "internal"
				if done && answer.status < http.StatusInternalServerError {
					o.code = "request_invalid" // it was refused before the agent was asked
				}
			}
			tell(agent, described, r, o)
		}()
		next.ServeHTTP(answer, r)
		done = true
	})
}

// tell has the agent keep one request. One to a path that does not exist is none.
func tell(agent Agent, described huma.API, r *http.Request, o *operation) {
	id, summary := operationOf(described, r.Pattern)
	if id == "" {
		return
	}
	e := o.about
	switch name := nameIn(r); {
	case strings.Contains(r.Pattern, "/links/{name}"):
		e.Link = name
	case strings.Contains(r.Pattern, "/peers/{name}"):
		e.Peer = name
	}
	made := events.Operation(actorOf(r), id, summary, o.code)
	made.Link, made.Database, made.Peer, made.Subject, made.Details = e.Link, e.Database, e.Peer, o.object, o.details
	if o.code != "" {
		made.Text += ": failed, " + o.code
	}
	agent.Did(made)
}

// nameIn is the name in the path of a request, also of one that was not passed to the mux.
func nameIn(r *http.Request) string {
	_, pattern, _ := strings.Cut(r.Pattern, " ")
	at := slices.Index(strings.Split(pattern, "/"), "{name}")
	parts := strings.Split(r.URL.EscapedPath(), "/")
	if at < 0 || at >= len(parts) {
		return ""
	}
	name, err := url.PathUnescape(parts[at])
	if err != nil {
		return ""
	}
	return name
}

// operationOf finds the operation of a pattern of the mux, as "POST /v1/links".
func operationOf(described huma.API, pattern string) (id, summary string) {
	method, path, _ := strings.Cut(pattern, " ")
	item := described.OpenAPI().Paths[path]
	if item == nil {
		return "", ""
	}
	of := map[string]*huma.Operation{http.MethodPost: item.Post, http.MethodPatch: item.Patch, http.MethodPut: item.Put, http.MethodDelete: item.Delete}[method]
	if of == nil {
		return "", ""
	}
	return of.OperationID, of.Summary
}

// actorOf says who asks.
func actorOf(r *http.Request) api.Actor {
	e, over := r.Context().Value(entryKey{}).(access.Entry)
	if !over {
		return api.Actor{Kind: api.ByOperator, Via: "socket"}
	}
	name := e.Label
	if name == "" {
		name = e.ID
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return api.Actor{Kind: api.ByOperator, Via: "token", Name: name, Role: string(e.Role), Address: host}
}
