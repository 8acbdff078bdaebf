package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

var moment = time.Date(2026, 11, 30, 5, 0, 0, 0, time.UTC)

func opened(t *testing.T, dir string, bytes int64, kept int) *Log {
	t.Helper()
	l, err := openSized(dir, bytes, kept)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func append1(t *testing.T, l *Log, text string) api.Event {
	t.Helper()
	e, err := l.Append(api.Event{Kind: api.EventAgent, Action: "started", At: moment, Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func texts(t *testing.T, l *Log, q api.EventQuery) (list []string, page api.EventPage) {
	t.Helper()
	page, err := l.Read(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Events {
		list = append(list, fmt.Sprint(e.Number, e.Text))
	}
	return list, page
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestEventsOutliveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	l := opened(t, dir, fileBytes, filesKept)
	append1(t, l, "a")
	append1(t, l, "b\nc")
	l.Close()
	l = opened(t, dir, fileBytes, filesKept)
	got, page := texts(t, l, api.EventQuery{})
	same(t, got, "1a", "2b c")
	if page.First != 1 || page.Last != 2 || page.Next != 2 || page.More {
		t.Errorf("%+v", page)
	}
	if e := append1(t, l, "d"); e.Number != 3 {
		t.Errorf("number %d", e.Number)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(l.path(1)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
}

// A process that is killed, or a machine that loses its power, leaves any part of what was
// written last.
func TestTornLineIsCutOff(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, fileBytes, filesKept)
	append1(t, l, "a")
	append1(t, l, "last")
	l.Close()
	whole, err := os.ReadFile(l.path(1))
	if err != nil {
		t.Fatal(err)
	}
	first := strings.Index(string(whole), "\n") + 1
	for n := first; n < len(whole); n++ {
		if err := os.WriteFile(l.path(1), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l := opened(t, dir, fileBytes, filesKept)
		append1(t, l, "next")
		l.Close()
		l = opened(t, dir, fileBytes, filesKept) // which reads the file
		got, _ := texts(t, l, api.EventQuery{})
		same(t, got, "1a", "2next")
		l.Close()
	}
}

func TestDamagedLinesArePassedBy(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, fileBytes, filesKept)
	for _, text := range []string{"a", "b", "c"} {
		append1(t, l, text)
	}
	l.Close()
	text, err := os.ReadFile(l.path(1))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if err := os.WriteFile(l.path(1), []byte(lines[0]+"\x00\x00{]\n\n"+lines[2]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "0000000000000000001.jsonl~"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = opened(t, dir, fileBytes, filesKept)
	got, _ := texts(t, l, api.EventQuery{})
	same(t, got, "1a", "3c")
}

func TestOldFilesGo(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, 500, 3)
	for n := range 50 {
		append1(t, l, fmt.Sprintf("event %02d", n))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > 500 {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
	l.Close()
	l = opened(t, dir, 500, 3)
	got, page := texts(t, l, api.EventQuery{})
	if page.First < 30 || page.Last != 50 || len(got) != int(50-page.First+1) || got[0] != fmt.Sprintf("%devent %02d", page.First, page.First-1) {
		t.Errorf("%+v, %q", page, got)
	}
}

func TestPagesFollowEachOther(t *testing.T) {
	l := opened(t, t.TempDir(), 2000, 100) // several files, more events than are kept in memory
	for n := range 2500 {
		e := api.Event{Kind: api.EventRole, Action: "changed", At: moment.Add(time.Duration(n) * time.Second), Link: []string{"x", "y"}[n%2], Text: fmt.Sprint(n)}
		if _, err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	first, err := l.Read(api.EventQuery{Limit: 1})
	if err != nil || len(first.Events) != 1 {
		t.Fatal(err)
	}
	want := first.Events[0].Number
	if want%2 == 1 { // those of x have odd numbers
		want += 2
	} else {
		want++
	}
	q := api.EventQuery{Link: "x", Limit: 7, After: want - 1}
	for {
		page, err := l.Read(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if e.Number != want || e.Link != "x" {
				t.Fatalf("number %d of %s, want %d", e.Number, e.Link, want)
			}
			want += 2
		}
		q.After = page.Next
		if !page.More {
			break
		}
	}
	if want != 2501 {
		t.Errorf("ended before %d", want)
	}
	got, page := texts(t, l, api.EventQuery{Newest: true, Limit: 2, Kinds: []string{"role.changed"}})
	same(t, got, "24992498", "25002499")
	if page.Next != 2500 || page.More {
		t.Errorf("%+v", page)
	}
	since, until := moment.Add(2497*time.Second), moment.Add(2499*time.Second)
	got, _ = texts(t, l, api.EventQuery{Since: &since, Until: &until})
	same(t, got, "24982497", "24992498")
	got, _ = texts(t, l, api.EventQuery{Kinds: []string{"problem", "role.found"}})
	same(t, got)
}

func TestKindsThatDoNotExistAreRefused(t *testing.T) {
	l := opened(t, t.TempDir(), fileBytes, filesKept)
	for _, kind := range []string{"", "rolle", "role.", "role.began", "role.changed.x"} {
		if _, err := l.Read(api.EventQuery{Kinds: []string{kind}}); problem.CodeOf(err) != "event_kind_unknown" {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

func TestReadersWhileItGrows(t *testing.T) {
	l := opened(t, t.TempDir(), 3000, 1000)
	const all = 400
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for after := int64(0); after < all; {
				grown := l.Grown()
				page, err := l.Read(api.EventQuery{After: after, Limit: 1000})
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range page.Events {
					if after++; e.Number != after {
						t.Errorf("%d, want %d", e.Number, after)
						return
					}
				}
				if len(page.Events) == 0 {
					<-grown
				}
			}
		})
	}
	for n := range all {
		append1(t, l, fmt.Sprint(n))
	}
	group.Wait()
}

// What cannot be written is not there, and what comes later is.
func TestFailedWriteLeavesNothing(t *testing.T) {
	l := opened(t, t.TempDir(), fileBytes, filesKept)
	append1(t, l, "a")
	good := l.open
	broken, err := os.Open(l.path(1)) // for reading alone
	if err != nil {
		t.Fatal(err)
	}
	l.open = broken
	if _, err := l.Append(api.Event{Kind: api.EventAgent, Text: "b"}); problem.CodeOf(err) != "events_unwritten" {
		t.Errorf("%v", err)
	}
	l.open = good
	broken.Close()
	append1(t, l, "c")
	got, _ := texts(t, l, api.EventQuery{})
	same(t, got, "1a", "2c")
	l.Close()
	l = opened(t, l.dir, fileBytes, filesKept)
	got, _ = texts(t, l, api.EventQuery{})
	same(t, got, "1a", "2c")
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	e := Bounded(api.Event{
		At: moment.In(time.FixedZone("x", 3600)), Text: strings.Repeat("ä", 5000), Link: "a\x00\x1b[31m\nb", Subject: `public."t (x)" (id, "a b") = (5, hunter2)`,
		By: api.Actor{Name: strings.Repeat("n", 1000)},
	})
	if len(e.Text) > mostText || !strings.HasSuffix(e.Text, "ä...") || e.Link != "a[31m b" || e.At.Location() != time.UTC || len(e.By.Name) > mostName {
		t.Errorf("%+v", e)
	}
	if strings.Contains(e.Subject, "hunter2") || !strings.HasPrefix(e.Subject, `public."t`) {
		t.Errorf("subject %q", e.Subject)
	}
	if e := Bounded(api.Event{Subject: "public.f(integer)"}); e.Subject != "public.f(integer)" {
		t.Errorf("subject %q", e.Subject)
	}
}

// Every kind and action that is listed can be kept and is what the API describes.
func TestKindsAreAsListed(t *testing.T) {
	for _, k := range api.EventKinds() {
		for _, action := range k.Actions {
			if err := errors.Join(CheckKind(string(k.Kind)), CheckKind(string(k.Kind)+"."+action)); err != nil {
				t.Error(err)
			}
		}
	}
	text, err := json.Marshal(api.Event{Kind: api.EventLease, Action: "taken", At: moment, By: api.Actor{Kind: api.ByAgent}})
	if want := `{"number":0,"at":"2026-11-30T05:00:00Z","kind":"lease","action":"taken","by":{"kind":"agent"},"text":""}`; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}
