package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// Whatever is asked for with GET below /v1 can be watched: with "Accept: text/event-stream"
// the answer is a stream of events (the HTML standard's server-sent events), one with the
// whole of it at first and whenever it has changed. Of what comes to an end, such as a
// failover, a verification, a copy or a backup, the last one is named "end"; DELETE at the
// same path gives it up. An error is the event "problem", and ends the stream.

const (
	streamType = "text/event-stream"
	// lookAgain is between two looks at what is watched, keepAlive how long a stream is quiet
	// at most, so that what lies between does not take it for dead.
	lookAgain = 500 * time.Millisecond
	keepAlive = 15 * time.Second
	// maxWatchers is how many watch at once, all tokens together.
	maxWatchers = 64
	// sendPatience is how long a client may leave an event unread.
	sendPatience = 30 * time.Second
)

// watching lets answers be watched. It is safe for concurrent use.
type watching struct {
	next   http.Handler
	places chan struct{}
	every  time.Duration
}

func watchable(next http.Handler) *watching {
	return &watching{next: next, places: make(chan struct{}, maxWatchers), every: lookAgain}
}

// ServeHTTP implements http.Handler.
func (h *watching) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/v1/") || !strings.Contains(r.Header.Get("Accept"), streamType) {
		h.next.ServeHTTP(w, r)
		return
	}
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		refuse(w, problem.New(problem.Resource, "watchers_crowded", "%d streams are watched already", maxWatchers).
			WithHint("end one, or ask from time to time without %s", streamType), http.StatusServiceUnavailable)
		return
	}
	h.stream(w, r)
}

func (h *watching) stream(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	send := func(text string) bool {
		out.SetWriteDeadline(time.Now().Add(sendPatience))
		_, err := fmt.Fprint(w, text)
		return err == nil && out.Flush() == nil
	}
	tick := time.NewTicker(h.every)
	defer tick.Stop()
	var last []byte
	quiet := time.Now()
	for first := true; ; first = false {
		now := h.look(r)
		if first {
			if now.status >= http.StatusBadRequest { // which a client sees by its status
				for name, values := range now.header {
					w.Header()[name] = values
				}
				w.WriteHeader(now.status)
				w.Write(now.body.Bytes())
				return
			}
			w.Header().Set("Content-Type", streamType)
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
		}
		text := bytes.TrimSpace(now.body.Bytes())
		name := ""
		switch {
		case now.status >= http.StatusBadRequest:
			name = "problem"
		case ended(text):
			name = "end"
		}
		if name != "" || !bytes.Equal(text, last) {
			event := "data: " + string(text) + "\n\n" // JSON has no line breaks
			if name != "" {
				event = "event: " + name + "\n" + event
			}
			if !send(event) || name != "" {
				return
			}
			last, quiet = bytes.Clone(text), time.Now()
		} else if time.Since(quiet) >= keepAlive {
			if !send(": nothing new\n\n") {
				return
			}
			quiet = time.Now()
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// look asks as one who does not watch.
func (h *watching) look(r *http.Request) *kept {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	asked := r.Clone(ctx)
	asked.Header.Set("Accept", "application/json")
	out := &kept{header: http.Header{}, status: http.StatusOK}
	h.next.ServeHTTP(out, asked)
	return out
}

// ended says whether an answer is of something that comes to an end, and has.
func ended(text []byte) bool {
	var of struct {
		State   string          `json:"state"`
		EndedAt json.RawMessage `json:"endedAt"`
		Audit   json.RawMessage `json:"passSeconds"` // an audit goes on after each pass
	}
	return json.Unmarshal(text, &of) == nil && of.State != "" && of.Audit == nil && len(of.EndedAt) > 0 && string(of.EndedAt) != "null" &&
		of.State != "running" && of.State != "waiting" && of.State != "resting" && of.State != "off"
}

// kept is an answer that is kept.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header { return k.header }

// WriteHeader implements http.ResponseWriter.
func (k *kept) WriteHeader(status int) { k.status = status }

// Write implements http.ResponseWriter.
func (k *kept) Write(text []byte) (int, error) { return k.body.Write(text) }
