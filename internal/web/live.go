package web

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twinspan/twinspan/client"
)

// How often a page is looked at anew, after how long a browser is told that nothing has
// changed, and how many pages are kept up to date at once.
const (
	lookEvery   = 2 * time.Second
	heartbeat   = 15 * time.Second
	mostStreams = 100
)

// live keeps a page up to date: what changes of it is rendered anew and sent when it has
// changed, as an event "part" with the HTML as JSON. Who is let in no more is told by an
// event "leave"; an agent that does not answer by "away".
func (f *face) live(w http.ResponseWriter, r *http.Request) {
	of, err := url.Parse(r.URL.Query().Get("page"))
	if err != nil || of.Host != "" || !strings.HasPrefix(of.Path, Base) {
		http.Error(w, "no such page", http.StatusBadRequest)
		return
	}
	select {
	case f.streams <- struct{}{}:
		defer func() { <-f.streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last [sha256.Size]byte
	var told time.Time
	for {
		if _, known := f.visitor(r, false); !known {
			fmt.Fprint(w, "event: leave\ndata: \n\n")
			_ = out.Flush()
			return
		}
		event, text := f.part(r, of)
		sum := sha256.Sum256([]byte(event + text))
		switch {
		case sum != last:
			data, err := json.Marshal(text)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, data)
			last, told = sum, time.Now()
		case time.Since(told) > heartbeat:
			fmt.Fprint(w, ": still here\n\n")
			told = time.Now()
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// part renders what changes of a page.
func (f *face) part(r *http.Request, of *url.URL) (event, text string) {
	ctx := context.WithValue(r.Context(), partKey{}, true)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, of.RequestURI(), http.NoBody)
	if err != nil {
		return "away", ""
	}
	request.Host = r.Host
	answer, err := client.Within(f.pages, r.RemoteAddr).RoundTrip(request)
	if err != nil {
		return "away", ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err == nil && answer.StatusCode == http.StatusOK:
		return "part", string(body)
	case answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusSeeOther:
		return "gone", ""
	}
	return "away", ""
}
