package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestSinceIsATimeOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 11, 30, 5, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"90m": "2026-11-30T03:30:00Z", "0s": "2026-11-30T05:00:00Z", "2026-11-30": "2026-11-30T00:00:00Z",
		"2026-11-30 04:05": "2026-11-30T04:05:00Z", "2026-11-30T04:00:00+02:00": "2026-11-30T02:00:00Z",
	} {
		if at, err := sinceWhen(in, now); err != nil || at.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v", in, at, err)
		}
	}
	if at, err := sinceWhen("", now); at != nil || err != nil {
		t.Errorf("%v, %v", at, err)
	}
	for _, in := range []string{"-1h", "yesterday", "1"} {
		if _, err := sinceWhen(in, now); problem.CodeOf(err) != "parameters_invalid" {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// scripted is a server of an API that answers requests for events one after the other.
func scripted(t *testing.T, answers ...string) (*client.Client, func() []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, len(answers)+1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			return
		}
		asked <- r.URL.RawQuery
		if len(answers) == 0 {
			<-r.Context().Done()
			return
		}
		status, body, _ := strings.Cut(answers[0], " ")
		answers = answers[1:] // one request at a time
		var code int
		fmt.Sscan(status, &code)
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	c, err := client.New(client.Dial{Socket: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, func() (list []string) {
		for {
			select {
			case q := <-asked:
				list = append(list, q)
			default:
				return list
			}
		}
	}
}

// A follower goes on behind what it has, waits for an agent that is away, and says what it
// has missed.
func TestFollowerGoesOn(t *testing.T) {
	event := `{"number":%d,"at":"2026-11-30T05:00:00Z","kind":"agent","action":"started","by":{"kind":"agent"},"text":"n%d"}`
	page := func(next, first, last int, events ...string) string {
		return fmt.Sprintf(`200 {"events":[%s],"next":%d,"first":%d,"last":%d}`, strings.Join(events, ","), next, first, last)
	}
	c, asked := scripted(t,
		page(5, 1, 5, fmt.Sprintf(event, 5, 5)),
		`503 {"kind":"transient","code":"agent_starting","text":"x","hint":"y"}`,
		page(5, 1, 5),
		page(20, 11, 20, fmt.Sprintf(event, 20, 20)),
		page(1, 1, 1), // the record is another one
		page(1, 1, 1, fmt.Sprintf(event, 1, 1)),
	)
	var out, errs bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	a := &app{deps: Deps{Poll: time.Millisecond}, out: &out, errs: &errs}
	a.flags.output = "table"
	done := make(chan error, 1)
	lines := &until{buffer: &out, text: "n1\n", reached: cancel}
	a.out = lines
	go func() { done <- a.events(ctx, c, api.EventQuery{Link: "x"}, true) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 3 || !strings.Contains(got, "n5\n") || !strings.Contains(got, "n20\n") {
		t.Errorf("%s", got)
	}
	if got := errs.String(); got != "5 events are not kept any more\nthe agent's record of events began anew\n" {
		t.Errorf("%s", got)
	}
	list := asked()
	want := []string{"limit=100&link=x&newest=true", "after=5&limit=1000&link=x&wait=30", "after=5&limit=1000&link=x&wait=30", "after=5&limit=1000&link=x&wait=30", "after=20&limit=1000&link=x&wait=30", "limit=1000&link=x&wait=30"}
	if strings.Join(list[:len(want)], "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", list)
	}
}

// until calls a function when a text has been written.
type until struct {
	buffer  *bytes.Buffer
	text    string
	reached func()
}

func (u *until) Write(b []byte) (int, error) {
	n, err := u.buffer.Write(b)
	if strings.HasSuffix(u.buffer.String(), u.text) {
		u.reached()
	}
	return n, err
}
