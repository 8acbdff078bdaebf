package httpapi

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// watchSocket asks over an agent's socket for a stream, and returns its events until it ends.
func watchSocket(t *testing.T, s *served, path string) (status int, list []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.dir.Socket())
	}}
	r, err := http.NewRequestWithContext(ctx, "GET", "http://agent"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", streamType)
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	event := ""
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "" && event != "":
			list, event = append(list, event), ""
		case answer.StatusCode != http.StatusOK:
			list = append(list, line)
		default:
			event += line + "\n"
		}
	}
	return answer.StatusCode, list
}

// What comes to an end is watched until then, one event for each change.
func TestALongWorkIsWatchedToItsEnd(t *testing.T) {
	at := time.Unix(9, 0).UTC()
	agent := sample()
	agent.Changing = []api.FailoverProgress{
		{Link: "sales", Type: api.Planned, State: api.FailoverRunning},
		{Link: "sales", Type: api.Planned, State: api.FailoverRunning},
		{Link: "sales", Type: api.Planned, State: api.FailoverRunning, Steps: []api.FailoverStep{{Name: "holding writers"}}},
		{Link: "sales", Type: api.Planned, State: api.FailoverDone, EndedAt: &at},
	}
	status, list := watchSocket(t, serve(t, agent, false), "/v1/links/sales/failover")
	if status != http.StatusOK || len(list) != 3 {
		t.Fatalf("%d, %q", status, list)
	}
	for i, want := range []string{`"steps":[]`, "holding writers", `"state":"done"`} {
		if !strings.Contains(list[i], want) || strings.HasPrefix(list[i], "event: end\n") != (i == 2) {
			t.Errorf("event %d is %q", i, list[i])
		}
	}
}

// What cannot be watched is said as it is to one who asks once.
func TestWhatCannotBeWatchedIsAnError(t *testing.T) {
	agent := sample()
	agent.Refusals = map[string]api.Error{"Copy": {Kind: string(problem.NotFound), Code: "copy_unknown", Text: "there is none", Hint: "database copies"}}
	status, list := watchSocket(t, serve(t, agent, false), "/v1/copies/c9")
	if status != http.StatusNotFound || len(list) != 1 || !strings.Contains(list[0], "copy_unknown") {
		t.Errorf("%d, %q", status, list)
	}
}

// So many watch, and no more; whoever leaves makes room.
func TestWatchersHavePlaces(t *testing.T) {
	h := watchable(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"a":1}`)) }))
	h.every = time.Millisecond
	ask := func(ctx context.Context) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/v1/links", nil).WithContext(ctx)
		r.Header.Set("Accept", streamType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan *httptest.ResponseRecorder, maxWatchers)
	for range maxWatchers {
		go func() {
			w := ask(ctx)
			for w.Code == http.StatusServiceUnavailable && ctx.Err() == nil { // the place was looked at
				w = ask(ctx)
			}
			done <- w
		}()
	}
	for taken := false; !taken; {
		select {
		case h.places <- struct{}{}: // one that nobody has taken yet
			<-h.places
		default:
			taken = true
		}
	}
	if w := ask(ctx); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "watchers_crowded") {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	leave()
	for range maxWatchers {
		if w := <-done; w.Code != http.StatusOK || w.Body.String() != "" && strings.Count(w.Body.String(), "data: ") != 1 {
			t.Errorf("a watcher got %d %q", w.Code, w.Body)
		}
	}
	if len(h.places) != 0 {
		t.Errorf("%d places are taken", len(h.places))
	}
}
