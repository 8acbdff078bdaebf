package web

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/door"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// How often one host may try to sign in, in a second and at once.
const (
	triesPerSecond = 0.2
	triesAtOnce    = 10
)

// entry is signing in and out.
type entry struct {
	face *face
	pace *door.Pace
}

func newEntry(f *face) *entry {
	return &entry{face: f, pace: &door.Pace{PerSecond: triesPerSecond, AtOnce: triesAtOnce}}
}

func (e *entry) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+Base+"sign-in", func(w http.ResponseWriter, r *http.Request) {
		e.ask(w, http.StatusOK, signIn{Next: inside(r.URL.Query().Get("next"))})
	})
	// The code of a one-time address stands in its fragment, which no request and no log
	// has; a script takes it from there into the form.
	mux.HandleFunc("POST "+Base+"sign-in", e.enter)
	mux.HandleFunc("POST "+Base+"sign-out", e.leave)
}

// signIn is the form.
type signIn struct {
	Next    string
	OneTime bool
	Wrong   string
	Version string
}

func (e *entry) ask(w http.ResponseWriter, status int, form signIn) {
	form.OneTime, form.Version = e.face.OneTime, e.face.Version
	var text bytes.Buffer
	if err := e.face.templates["signin"].ExecuteTemplate(&text, "signin", form); err != nil {
		e.face.Log.Error("a page cannot be shown", telemetry.Failure(err))
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // the browser may be gone
}

// inside is a path to go on to: one of these pages, or the first.
func inside(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(u.Path, Base) || strings.Contains(u.Path, "..") || strings.HasPrefix(u.Path, Base+"sign-") {
		return Base
	}
	return u.RequestURI()
}

func (e *entry) enter(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		e.ask(w, http.StatusBadRequest, signIn{Wrong: "The form cannot be read."})
		return
	}
	form := signIn{Next: inside(r.PostForm.Get("next"))}
	if !e.pace.Allow(r.RemoteAddr, time.Now()) {
		w.Header().Set("Retry-After", "5")
		form.Wrong = "This machine tries too often. Wait some seconds and try again."
		e.ask(w, http.StatusTooManyRequests, form)
		return
	}
	who, known := e.face.Entrance.Enter(strings.TrimSpace(r.PostForm.Get("secret")))
	if !known {
		form.Wrong = "No such token is known here. It may have been revoked."
		if e.face.OneTime {
			form.Wrong = "This address was used, or is too old. Run twinspan ui again."
		}
		e.ask(w, http.StatusForbidden, form)
		return
	}
	secret, err := e.face.sessions.begin(who.Key)
	if err != nil {
		e.face.Log.Error("a session cannot be kept", telemetry.Failure(err))
		form.Wrong = "The session cannot be kept: see that the agent's directory can be written."
		e.ask(w, http.StatusInsufficientStorage, form)
		return
	}
	e.setCookie(w, secret, 0)
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
}

func (e *entry) leave(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(e.face.Cookie); err == nil {
		if err := e.face.sessions.end(c.Value); err != nil {
			e.face.Log.Error("the end of a session cannot be kept", telemetry.Failure(err))
		}
	}
	e.setCookie(w, "", -1)
	http.Redirect(w, r, Base+"sign-in", http.StatusSeeOther)
}

// setCookie gives a session to the browser, until that is closed.
func (e *entry) setCookie(w http.ResponseWriter, secret string, age int) {
	http.SetCookie(w, &http.Cookie{Name: e.face.Cookie, Value: secret, Path: "/", MaxAge: age, HttpOnly: true, Secure: e.face.Secure, SameSite: http.SameSiteStrictMode})
}

// signedIn lets in who has a session and is still let in, and leads others to the form.
func (f *face) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		live := r.URL.Path == Base+"live"
		who, known := f.visitor(r, !live)
		if !known {
			if live || r.Header.Get("Sec-Fetch-Mode") == "cors" {
				http.Error(w, "sign in again", http.StatusUnauthorized)
				return
			}
			to := Base + "sign-in"
			if r.Method == http.MethodGet && r.URL.Path != Base {
				to += "?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
			}
			http.Redirect(w, r, to, http.StatusSeeOther)
			return
		}
		f.Entrance.Welcome(r)
		agent, err := f.Entrance.Client(who, r.RemoteAddr)
		if err != nil {
			f.Log.Error("the agent cannot be asked", telemetry.Failure(err))
			http.Error(w, "the agent cannot be asked", http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, visit{who, agent})))
	})
}

// visitor is whose session a request has.
func (f *face) visitor(r *http.Request, looks bool) (Visitor, bool) {
	c, err := r.Cookie(f.Cookie)
	if err != nil {
		return Visitor{}, false
	}
	key, has := f.sessions.find(c.Value, looks)
	if !has {
		return Visitor{}, false
	}
	return f.Entrance.Again(key)
}
