// Package hooks runs an operator's programs when something happens: one run at a time for
// each hook, in order, bounded in time and number. Nothing waits for a hook.
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/events"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// DefaultTimeout is how long a run may take where the configuration does not say.
	DefaultTimeout = 30 * time.Second
	// mostWaiting is how many events wait for a hook.
	mostWaiting = 1000
	// mostOutput is how much of what a failed run wrote is logged.
	mostOutput = 1000
	// endPatience is how long the runner goes on at its end, so that hooks are told of it too.
	endPatience = 5 * time.Second
	// pipePatience is how long what a run has started may keep its output open.
	pipePatience = time.Second
)

// Hook is a program that is run for events.
type Hook struct {
	On      []string      // kinds of events, or actions, as events.IsOf takes them; none for all
	Command []string      // program and arguments
	Timeout time.Duration // 0 for DefaultTimeout
}

// Name tells a hook from others, for people: its program.
func (h Hook) Name() string { return h.Command[0] }

// Runner runs hooks. Set the fields, then Run.
type Runner struct {
	Agent string // the agent's name
	Hooks []Hook
	Log   *slog.Logger
	// Note keeps an event about a hook.
	Note func(api.Event)

	once    sync.Once
	waiting []*line
}

// line is what waits for one hook.
type line struct {
	hook Hook

	mu      sync.Mutex
	events  []api.Event
	wake    chan struct{} // holds one
	dropped int64
	failing *problem.Error
	behind  *problem.Error
}

func (r *Runner) lines() []*line {
	r.once.Do(func() {
		for _, h := range r.Hooks {
			r.waiting = append(r.waiting, &line{hook: h, wake: make(chan struct{}, 1)})
		}
	})
	return r.waiting
}

// ours are the codes of problems of hooks.
func ours(code string) bool { return code == "hook_failed" || code == "hook_behind" }

// Offer has an event given to the hooks that want it, and returns at once. Events about
// hooks are given to none: one that fails on what its failure brings about would never end.
func (r *Runner) Offer(e api.Event) {
	if e.Kind == api.EventHook || e.Kind == api.EventProblem && ours(e.Code) {
		return
	}
	for _, l := range r.lines() {
		if len(l.hook.On) > 0 && !events.IsOf(l.hook.On, e) {
			continue
		}
		l.mu.Lock()
		first := false
		if len(l.events) >= mostWaiting {
			first = l.dropped == 0
			l.dropped++
			l.behind = problem.New(problem.Resource, "hook_behind", "the hook %s is too slow: %d events wait for it, %d were dropped", l.hook.Name(), len(l.events), l.dropped).
				On(l.hook.Name()).WithHint("see why the program takes so long; what was dropped is in twinspan events")
		} else {
			l.events = append(l.events, e)
		}
		l.mu.Unlock()
		if first {
			r.about(l, "dropped", "hook_behind", "events are dropped: too many wait for the hook")
		}
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Problems lists what is wrong with hooks now.
func (r *Runner) Problems() []*problem.Error {
	var list []*problem.Error
	for _, l := range r.lines() {
		l.mu.Lock()
		for _, p := range []*problem.Error{l.failing, l.behind} {
			if p != nil {
				list = append(list, p)
			}
		}
		l.mu.Unlock()
	}
	return list
}

// Run runs the hooks until ctx ends, and then what waits, for a moment.
func (r *Runner) Run(ctx context.Context) error {
	ending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(endPatience, stop) })()
	var group sync.WaitGroup
	for _, l := range r.lines() {
		group.Go(func() { r.serve(ctx, ending, l) })
	}
	group.Wait()
	return nil
}

// serve runs one hook: as long as events come until ctx ends, and then as long as some wait
// until ending ends.
func (r *Runner) serve(ctx, ending context.Context, l *line) {
	for ending.Err() == nil {
		l.mu.Lock()
		var next *api.Event
		caughtUp := int64(0)
		if len(l.events) > 0 {
			e := l.events[0]
			next = &e
			l.events = l.events[1:]
		} else {
			caughtUp = l.dropped
			l.behind, l.dropped, l.events = nil, 0, nil
		}
		l.mu.Unlock()
		if caughtUp > 0 {
			r.about(l, "dropped", "hook_behind", fmt.Sprintf("the hook has caught up; %d events were dropped and not given to it", caughtUp))
		}
		if next != nil {
			r.finished(l, *next, r.run(ending, l.hook, *next))
			continue
		}
		select {
		case <-l.wake:
			continue
		default:
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
	}
}

// finished notes how a run ended.
func (r *Runner) finished(l *line, e api.Event, err error) {
	l.mu.Lock()
	before := l.failing
	l.failing = nil
	if err != nil {
		l.failing = problem.New(problem.Resource, "hook_failed", "the hook %s failed at event %d (%s.%s): %s", l.hook.Name(), e.Number, e.Kind, e.Action, err).
			On(l.hook.Name()).WithHint("the agent's log has what the program wrote; the event itself: twinspan events --after %d", e.Number-1)
	}
	l.mu.Unlock()
	switch {
	case err != nil:
		r.about(l, "failed", "hook_failed", fmt.Sprintf("the hook failed at event %d (%s.%s): %s", e.Number, e.Kind, e.Action, err))
	case before != nil:
		r.Log.Info("hook works again", "hook", l.hook.Name())
	}
}

func (r *Runner) about(l *line, action, code, text string) {
	r.Note(api.Event{At: time.Now(), Kind: api.EventHook, Action: action, By: api.Actor{Kind: api.ByAgent}, Subject: l.hook.Name(), Code: code, Text: text})
}

// run runs a hook for one event, and ends what it has started.
func (r *Runner) run(ctx context.Context, h Hook, e api.Event) error {
	timeout := h.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, h.Command[0], h.Command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", Environment(r.Agent, e), bytes.NewReader(append(text, '\n'))
	output := &head{most: mostOutput}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipePatience
	err = cmd.Run()
	if cmd.Process != nil {
		// What it left running: a group is there as long as one of it is. None is no error.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it ended well; what it left running was ended
	case ctx.Err() == context.DeadlineExceeded:
		err = fmt.Errorf("it was not done within %s and was ended", timeout)
	case ctx.Err() != nil:
		err = errors.New("the agent stopped before it was done")
	case errors.As(err, &exit) && exit.Exited():
		err = fmt.Errorf("exit status %d", exit.ExitCode())
	case errors.As(err, &exit):
		err = fmt.Errorf("ended by a signal: %s", exit)
	case err != nil && cmd.Process == nil:
		err = fmt.Errorf("it cannot be started: %w", err)
	}
	if err != nil {
		r.Log.Warn("hook failed", "hook", h.Name(), "event", e.Number, "err", err, "output", output.String())
	}
	return err
}

// head keeps the beginning of what is written.
type head struct {
	most int
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, b[:min(len(b), h.most-len(h.text))]...)
	return len(b), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ToValidUTF8(string(h.text), "\ufffd")
}

// Environment is all that a hook has of variables.
func Environment(agent string, e api.Event) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TWINSPAN_AGENT=" + agent}
	add := func(name, value string) {
		if value != "" {
			env = append(env, "TWINSPAN_EVENT_"+name+"="+strings.ReplaceAll(value, "\x00", ""))
		}
	}
	add("NUMBER", strconv.FormatInt(e.Number, 10))
	add("AT", e.At.UTC().Format(time.RFC3339Nano))
	add("KIND", string(e.Kind))
	add("ACTION", e.Action)
	add("LINK", e.Link)
	add("LINK_ID", e.LinkID)
	add("DATABASE", e.Database)
	add("PEER", e.Peer)
	add("BY", string(e.By.Kind))
	add("TEXT", e.Text)
	add("CODE", e.Code)
	add("SEVERITY", string(e.Severity))
	add("SUBJECT", e.Subject)
	add("ROLE", string(e.Role))
	add("PHASE", string(e.Phase))
	if e.Epoch != 0 {
		add("EPOCH", strconv.FormatInt(e.Epoch, 10))
	}
	add("STEP", e.Step)
	if e.Seconds != nil {
		add("SECONDS", strconv.FormatFloat(*e.Seconds, 'f', 3, 64))
	}
	add("REQUEST", e.Request)
	return env
}
