// Package web is the face of an agent for browsers: pages that are rendered here, links
// and wizards among them, with everything they need inside the program. It knows the agent
// by package client alone (docs/design/0036-web.md).
package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// Base begins the path of every page.
const Base = "/ui/"

// asking bounds how long a page waits for the agent; patient how long an action does, or a
// page that measures, which may have to ask the other side.
const (
	asking  = 15 * time.Second
	patient = 2 * time.Minute
)

// measuring are the pages that have the agent look at both servers and the network.
var measuring = []string{"new", "network", "links/{name}/failover", "links/{name}/rejoin"}

// mostForm bounds what a browser sends.
const mostForm = 256 << 10

// Visitor is who looks at pages.
type Visitor struct {
	Key      string // names him to the Entrance; no secret
	Name     string // for people
	Operator bool   // whether he may act
}

// Entrance decides who gets in, and asks the agent for him. It is safe for concurrent use.
type Entrance interface {
	// Enter returns the visitor whom a secret lets in.
	Enter(secret string) (Visitor, bool)
	// Again returns the visitor with a key as he is now, and false when he is let in no more.
	Again(key string) (Visitor, bool)
	// Client asks the agent for a visitor at an address, HOST:PORT.
	Client(v Visitor, address string) (*client.Client, error)
	// Serves says whether pages are served under a request's Host.
	Serves(host string) bool
	// Welcome is told of a request by somebody who is let in.
	Welcome(r *http.Request)
}

// Config is what New needs. All fields but Sessions are required.
type Config struct {
	Entrance Entrance
	Version  string // of the program
	Log      *slog.Logger
	// Cookie is the name of the session's cookie. Secure says that pages are served over
	// TLS alone; the name begins with __Host- then.
	Cookie string
	Secure bool
	// OneTime says that the secret is the code of an address that works once, not a token.
	OneTime bool
	// Sessions is the file that keeps sessions over a restart, by their hashes; empty to
	// keep them in memory.
	Sessions string
}

// face is the handler.
type face struct {
	Config
	templates templates
	static    static
	sessions  *sessions
	streams   chan struct{} // a place for each page that is kept up to date
	pages     *http.ServeMux
	door      *entry
}

// New makes the handler of everything below Base.
func New(c Config) (http.Handler, error) {
	f := &face{Config: c, streams: make(chan struct{}, mostStreams), pages: http.NewServeMux()}
	var err error
	if f.static, err = loadStatic(); err != nil {
		return nil, err
	}
	if f.templates, err = f.loadTemplates(); err != nil {
		return nil, err
	}
	if f.sessions, err = openSessions(c.Sessions); err != nil {
		return nil, err
	}
	f.door = newEntry(f)
	f.routes()
	outer := http.NewServeMux()
	outer.Handle("GET "+Base+"static/", f.static)
	f.door.routes(outer)
	outer.Handle("GET "+Base+"live", f.signedIn(http.HandlerFunc(f.live)))
	outer.Handle(Base, f.signedIn(f.pages))
	return f.secured(http.NewCrossOriginProtection().Handler(outer)), nil
}

// contentPolicy lets nothing run, load or be sent that is not the agent's own.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// secured sets what browsers are to keep to, and refuses what is meant for another host.
func (f *face) secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin") // without one browsers hide where a form comes from
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		if !f.Entrance.Serves(r.Host) {
			http.Error(w, "This agent is not known by the name in the address. Use its address, localhost, or a name of its certificate.", http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, mostForm)
		next.ServeHTTP(w, r)
	})
}

// exchange is one request for a page and its answer.
type exchange struct {
	face   *face
	w      http.ResponseWriter
	r      *http.Request
	who    Visitor
	agent  *client.Client
	status int
}

// visit is who asks, within the context of a request.
type visit struct {
	who   Visitor
	agent *client.Client
}

type visitKey struct{}

// partKey marks a request for what changes of a page.
type partKey struct{}

// page is what templates are given.
type page struct {
	Title   string
	Nav     string // which entry of the navigation it is below
	Path    string // of the page, with its query: what is kept up to date
	Live    bool
	Who     Visitor
	Agent   *api.Agent // nil when it does not answer
	Version string
	Said    string // what was done
	Error   *api.Error
	D       any
}

// page registers the answer to a method and path below Base.
func (f *face) page(pattern string, answer func(x *exchange) error) {
	method, path, _ := strings.Cut(pattern, " ")
	f.pages.HandleFunc(method+" "+Base+path, func(w http.ResponseWriter, r *http.Request) {
		v := r.Context().Value(visitKey{}).(visit)
		bound := asking
		if method == http.MethodPost || slices.Contains(measuring, path) {
			bound = patient
		}
		ctx, cancel := context.WithTimeout(r.Context(), bound)
		defer cancel()
		x := &exchange{face: f, w: w, r: r.WithContext(ctx), who: v.who, agent: v.agent, status: http.StatusOK}
		if method == http.MethodPost {
			if err := x.r.ParseForm(); err != nil {
				x.fail(&api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: "the form cannot be read"})
				return
			}
			if !v.who.Operator {
				x.fail(errReader)
				return
			}
		}
		if err := answer(x); err != nil {
			x.fail(err)
		}
	})
}

// errReader refuses changes, before the agent does.
var errReader = &api.Error{Status: http.StatusForbidden, Kind: string(problem.Unauthorised), Code: "token_reader", Text: "you may look, not change", Hint: "sign in with an operator's token"}

func (x *exchange) ctx() context.Context { return x.r.Context() }

// show answers with a page.
func (x *exchange) show(name string, p page) error {
	p.Path, p.Who, p.Version = x.r.URL.RequestURI(), x.who, x.face.Version
	p.Said = said[x.r.URL.Query().Get("said")]
	block := "page"
	if x.ctx().Value(partKey{}) != nil {
		block = "main"
	}
	if p.Agent == nil && block == "page" {
		if a, err := x.agent.Agent(x.ctx()); err == nil {
			p.Agent = &a
		}
	}
	var text bytes.Buffer
	if err := x.face.templates[name].ExecuteTemplate(&text, block, p); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.w.WriteHeader(x.status)
	_, _ = x.w.Write(text.Bytes()) // the browser may be gone
	return nil
}

// fail answers with an error.
func (x *exchange) fail(err error) {
	e := x.explained(err)
	x.status = e.Status
	if err := x.show("error", page{Title: "It did not work", Error: e, D: x.back()}); err != nil {
		x.face.Log.Error("a page cannot be shown", telemetry.Failure(err))
		http.Error(x.w, "the page cannot be shown", http.StatusInternalServerError)
	}
}

// explained is an error for people, with its status.
func (x *exchange) explained(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		out := *e
		e = &out
	case errors.Is(err, context.DeadlineExceeded):
		e = &api.Error{Status: http.StatusGatewayTimeout, Kind: string(problem.Transient), Code: "agent_silent", Text: "the agent did not answer in time", Hint: "try again; see in its log what keeps it"}
	default:
		x.face.Log.Error("a page failed", "path", x.r.URL.Path, telemetry.Failure(err))
		e = &api.Error{Status: http.StatusInternalServerError, Kind: string(problem.Internal), Code: "internal", Text: "this page failed", Hint: "the log of the agent says more"}
	}
	if e.Status == 0 {
		e.Status = http.StatusBadGateway // no agent answered
	}
	return e
}

// back is the page that somebody came from, where it is one of these.
func (x *exchange) back() string {
	from, err := url.Parse(x.r.Referer())
	if err != nil || from.Host != x.r.Host || !strings.HasPrefix(from.Path, Base) || from.RequestURI() == x.r.URL.RequestURI() {
		return Base
	}
	return from.RequestURI()
}

// done leads to a page after something was done, and says so there.
func (x *exchange) done(to, what string) error {
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	if what != "" {
		q := u.Query()
		q.Set("said", what)
		u.RawQuery = q.Encode()
	}
	http.Redirect(x.w, x.r, u.String(), http.StatusSeeOther)
	return nil
}

// said is what can have been done.
var said = map[string]string{
	"suspended": "The link is suspended. The primary keeps its log until it is resumed.",
	"resumed":   "The link goes on.",
	"repairing": "The link compares both sides, copies what differs and goes on.",
	"skipped":   "The link goes on without the schema change.",
	"set":       "The settings are changed on both sides.",
	"verifying": "The comparison has begun.",
	"cancelled": "It is cancelled.",
	"auditing":  "A pass of the audit has begun.",
	"discarded": "The record of what was lost is discarded.",
	"objects":   "The large objects are brought.",
	"joined":    "The two agents trust each other now.",
	"removed":   "The trust in the peer has ended.",
	"granted":   "The peer may do more from now on.",
	"revoked":   "The peer may do less from its next request on.",
	"uninvited": "The invitation is taken back.",
	"rotated":   "There is a new key; the old one stays valid until every peer has the new one.",
	"sized":     "The size is changed.",
	"restarted": "The size is changed, and the server was restarted.",
	"pending":   "The size is changed. Settings wait for a restart of the server; they are named below.",
	"durable":   "The durability is changed.",
	"out":       "The member is removed. Its agent stops its server as soon as it learns of it.",
	"copying":   "The copy has begun.",
	"restoring": "The restore has begun.",
	"backup":    "The backup has begun.",
	"checking":  "The repository is being read.",
	"policy":    "The policy is changed.",
	"rejoining": "The rejoin has begun.",
	"brought":   "The roles were brought.",
	"failing":   "The change of places has begun.",
	"created":   "The link is created; the first copy begins.",
}
