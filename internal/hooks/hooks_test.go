package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/leaks"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/transcript"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// world is a runner with what it noted.
type world struct {
	*Runner
	dir  string
	stop func()

	mu    sync.Mutex
	noted []api.Event
	log   transcript.Buffer
}

func (w *world) about() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.noted {
		list = append(list, string(e.Kind)+"."+e.Action+" "+e.Text)
	}
	return list
}

// hook is one whose program is a script of the shell. $DIR in it is a directory of the test.
func (w *world) hook(script string, on ...string) Hook {
	return Hook{On: on, Command: []string{"/bin/sh", "-c", strings.ReplaceAll(script, "$DIR", w.dir), "hook"}}
}

func begin(t *testing.T, hooks func(w *world) []Hook) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.Runner = &Runner{Agent: "a", Log: slog.New(slog.NewTextHandler(&w.log, nil)), Note: func(e api.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.noted = append(w.noted, e)
	}}
	w.Hooks = hooks(w)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func event(n int64) api.Event {
	return api.Event{Number: n, At: time.Date(2026, 11, 30, 5, 0, 0, 0, time.UTC), Kind: api.EventProblem, Action: "began", Link: `we"ird`, Code: "disk_full", By: api.Actor{Kind: api.ByAgent}, Text: "text of " + strconv.FormatInt(n, 10)}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline.C:
			t.Fatalf("%s did not come", what)
		case <-tick.C:
		}
	}
}

func (w *world) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func TestHookIsGivenTheEventAndNothingElse(t *testing.T) {
	t.Setenv("PGPASSWORD", "hunter2")
	w := begin(t, func(w *world) []Hook {
		return []Hook{w.hook(`cat > "$DIR/event"; /usr/bin/env > "$DIR/env"; pwd > "$DIR/pwd"`)}
	})
	e := event(7)
	e.Seconds, e.Subject = new(1.5), "a\x00b"
	w.Offer(e)
	await(t, "the run", func() bool { return w.read(t, "pwd") != "" })
	w.stop()
	var got api.Event
	if err := json.Unmarshal([]byte(w.read(t, "event")), &got); err != nil || got.Number != 7 || got.Link != `we"ird` || got.Text != "text of 7" || *got.Seconds != 1.5 {
		t.Errorf("%+v, %v", got, err)
	}
	env := map[string]string{}
	for line := range strings.Lines(w.read(t, "env")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[name] = value
	}
	for _, shells := range []string{"PWD", "OLDPWD", "SHLVL", "_"} {
		delete(env, shells)
	}
	want := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TWINSPAN_AGENT": "a", "TWINSPAN_EVENT_NUMBER": "7",
		"TWINSPAN_EVENT_AT": "2026-11-30T05:00:00Z", "TWINSPAN_EVENT_KIND": "problem", "TWINSPAN_EVENT_ACTION": "began", "TWINSPAN_EVENT_LINK": `we"ird`, "TWINSPAN_EVENT_BY": "agent",
		"TWINSPAN_EVENT_TEXT": "text of 7", "TWINSPAN_EVENT_CODE": "disk_full", "TWINSPAN_EVENT_SECONDS": "1.500", "TWINSPAN_EVENT_SUBJECT": "ab"}
	if fmt.Sprint(env) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", env, want)
	}
	if w.read(t, "pwd") != "/\n" || len(w.about()) > 0 {
		t.Errorf("%q, %q", w.read(t, "pwd"), w.about())
	}
}

// Two runs at once would find the directory of the other.
func TestRunsOfAHookFollowEachOther(t *testing.T) {
	w := begin(t, func(w *world) []Hook {
		script := func(name string) string {
			return strings.ReplaceAll(`mkdir "$DIR/NAME.lock" && echo "$TWINSPAN_EVENT_NUMBER" >> "$DIR/NAME" && rmdir "$DIR/NAME.lock"`, "NAME", name)
		}
		return []Hook{w.hook(script("all")), w.hook(script("some"), "role", "problem.ended"), w.hook(script("none"), "hook", "problem.began")}
	})
	var all, some string
	for n := range int64(30) {
		e := event(n)
		switch n % 3 {
		case 0:
			e.Kind, e.Action = api.EventRole, "changed"
			some += fmt.Sprintln(n)
		case 1:
			e.Action = "ended"
			some += fmt.Sprintln(n)
		case 2:
			e.Kind = api.EventHook
		}
		if n%3 < 2 {
			all += fmt.Sprintln(n)
		}
		w.Offer(e)
	}
	failed := event(99)
	failed.Code = "hook_failed"
	w.Offer(failed)
	await(t, "the runs", func() bool { return len(w.read(t, "all")) >= len(all) && len(w.read(t, "some")) >= len(some) })
	w.stop()
	if got := w.read(t, "all"); got != all {
		t.Errorf("all: %q", got)
	}
	if got := w.read(t, "some"); got != some {
		t.Errorf("some: %q", got)
	}
	if got := w.read(t, "none"); got != "" {
		t.Errorf("none: %q", got)
	}
	if len(w.about()) > 0 {
		t.Errorf("%q", w.about())
	}
}

func TestFailureIsAProblemUntilTheNextSuccess(t *testing.T) {
	w := begin(t, func(w *world) []Hook {
		return []Hook{
			w.hook(`echo "to the log: $TWINSPAN_EVENT_NUMBER" >&2; test "$TWINSPAN_EVENT_NUMBER" != 1 || exit 3; echo >> "$DIR/done"`),
			{Command: []string{"/nowhere/program"}},
		}
	})
	w.Offer(event(1))
	await(t, "the problems", func() bool { return len(w.Problems()) == 2 })
	for i, want := range []string{"the hook /bin/sh failed at event 1 (problem.began): exit status 3", "the hook /nowhere/program failed at event 1 (problem.began): it cannot be started: "} {
		p := w.Problems()[i]
		if p.Code != "hook_failed" || !strings.HasPrefix(p.Error(), want) || p.Hint == "" {
			t.Errorf("%v", p)
		}
	}
	await(t, "the events", func() bool { return len(w.about()) == 2 })
	if log := w.log.String(); !strings.Contains(log, "to the log: 1") || strings.Contains(strings.Join(w.about(), ""), "to the log") {
		t.Errorf("log %s\nevents %q", log, w.about())
	}
	w.Offer(event(2))
	await(t, "the end of one problem", func() bool { return len(w.Problems()) == 1 })
	w.stop()
	if problem.CodeOf(w.Problems()[0]) != "hook_failed" || w.Problems()[0].Subject != "/nowhere/program" || w.read(t, "done") != "\n" {
		t.Errorf("%v", w.Problems())
	}
}

// A run that takes too long is ended with all that it has started.
func TestSlowRunIsEndedWithItsGroup(t *testing.T) {
	w := begin(t, func(w *world) []Hook {
		slow := w.hook(`sleep 1000 & echo $! > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"; wait`)
		slow.Timeout = 500 * time.Millisecond
		// One that ends and leaves something behind, which holds its output open.
		leaves := w.hook(`sleep 1000 & echo $! > "$DIR/left"`)
		return []Hook{slow, leaves}
	})
	for n := int64(1); n <= 20 && w.read(t, "pid") == ""; n++ { // one may be ended before its shell has begun
		w.Offer(event(n))
		at := fmt.Sprintf(" at event %d ", n)
		await(t, "the problem", func() bool {
			list := w.Problems()
			return len(list) == 1 && strings.Contains(list[0].Error(), at)
		})
		if p := w.Problems()[0]; !strings.HasSuffix(p.Error(), "it was not done within 500ms and was ended") {
			t.Errorf("%v", p)
		}
	}
	w.stop()
	for _, name := range []string{"pid", "left"} {
		pid, err := strconv.Atoi(strings.TrimSpace(w.read(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the end of the sleep", func() bool { return gone(pid) })
	}
	if len(w.Problems()) != 1 {
		t.Errorf("%v", w.Problems())
	}
}

// gone says whether a process has ended, also where nobody has waited for it.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestTooManyEventsAreDroppedAndCounted(t *testing.T) {
	w := begin(t, func(w *world) []Hook {
		if err := syscall.Mkfifo(filepath.Join(w.dir, "go"), 0o600); err != nil {
			t.Fatal(err)
		}
		return []Hook{w.hook(`test "$TWINSPAN_EVENT_NUMBER" != 0 || { > "$DIR/waits"; read line < "$DIR/go"; }; exit 0`)}
	})
	w.Offer(event(0))
	await(t, "the first run", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "waits"))
		return err == nil
	})
	for n := range int64(mostWaiting + 5) {
		w.Offer(event(n + 1))
	}
	if list := w.Problems(); len(list) != 1 || list[0].Code != "hook_behind" || !strings.Contains(list[0].Error(), "1000 events wait for it, 5 were dropped") {
		t.Errorf("%v", list)
	}
	l := w.lines()[0]
	l.mu.Lock()
	l.events = l.events[:3] // the others would take their time
	l.mu.Unlock()
	if err := os.WriteFile(filepath.Join(w.dir, "go"), []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the problem", func() bool { return len(w.Problems()) == 0 })
	w.stop()
	if got := w.about(); len(got) != 2 || got[1] != "hook.dropped the hook has caught up; 5 events were dropped and not given to it" {
		t.Errorf("%q", got)
	}
}
