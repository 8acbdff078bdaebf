package member

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// stopPatience is how long a program may take to end once it was told to.
	stopPatience = 60 * time.Second
	// killPatience is how long after a program was killed its end is waited for.
	killPatience = 10 * time.Second
	firstPause   = 500 * time.Millisecond
	mostPause    = 15 * time.Second
	steadyAfter  = time.Minute
	mostLog      = 10 << 20
)

// program is one that a member runs: it is started again when it ends, and taken over from an agent that was killed, for the instance goes
// on without its agents.
type program struct {
	name   string
	config string // path of its configuration, by which it is told from others
	pid    string // path of the file that holds its process id
	output string // path of the file that takes what it says
	make   func() (*exec.Cmd, error)
	// healthy, when set, says whether it answers. One that has not for deaf is killed and started again: a program that is stopped does not end by itself.
	healthy func(ctx context.Context) bool
	deaf    time.Duration
	log     *slog.Logger

	mu      sync.Mutex
	runs    int // process id while it runs
	trouble *problem.Error
}

// why is why the program does not run, nil where it does.
func (p *program) why() *problem.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

func (p *program) note(pid int, trouble *problem.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs, p.trouble = pid, trouble
}

// running is the program as a process: a child, or one of an earlier agent, whose end is seen by looking.
type running struct {
	pid   int
	ended chan struct{}
}

// run keeps the program running until ctx ends, then stops it. before is called before each start: what it refuses is tried again.
func (p *program) run(ctx context.Context, before func(ctx context.Context) error) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		at, err := p.begin(ctx, before)
		if err != nil {
			if ctx.Err() == nil {
				trouble := problem.As(err)
				if was := p.why(); was == nil || was.Error() != trouble.Error() {
					p.log.Error(p.name+" is not started", "code", trouble.Code, "err", trouble)
				}
				p.note(0, trouble)
			}
		} else {
			p.note(at.pid, nil)
			p.follow(ctx, at)
			if ctx.Err() != nil {
				p.stop(at)
				return
			}
			p.note(0, problem.New(problem.Transient, "member_program_ended", "%s has ended: %s; it is started again", p.name, p.lastError()).On(p.name).WithHint("%s says why", p.output))
			p.log.Error(p.name+" ended by itself", "log", p.output, "restart_after", pause)
		}
		if time.Since(began) > steadyAfter {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, mostPause)
	}
}

// lastError is the last error in what the program has said: etcd writes JSON, Python lines.
func (p *program) lastError() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return "no reason is known"
	}
	text = text[max(0, len(text)-16<<10):]
	if _, after, ok := strings.Cut(string(text[max(0, strings.LastIndex(string(text), `"error":"`)):]), `"error":"`); ok {
		reason, _, _ := strings.Cut(after, `"`)
		return reason
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return firstOf(strings.TrimSpace(lines[len(lines)-1]), "no reason is known")
}

// begin takes the program over that an earlier agent has left, or starts it.
func (p *program) begin(ctx context.Context, before func(ctx context.Context) error) (running, error) {
	if pid := p.left(); pid != 0 {
		p.log.Info("running "+p.name+" taken over", "pid", pid)
		return p.foreign(pid), nil
	}
	if err := before(ctx); err != nil {
		return running{}, err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(p.output); err == nil && info.Size() > mostLog {
		flags |= os.O_TRUNC
	}
	output, err := os.OpenFile(p.output, flags, 0o600)
	if err != nil {
		return running{}, problem.Wrap(err, problem.Resource, "dir_not_writable", "open the log of %s", p.name)
	}
	defer output.Close()
	cmd, err := p.make()
	if err != nil {
		return running{}, err
	}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		return running{}, problem.Wrap(err, problem.Internal, "member_program_failed", "%s cannot be started", p.name).On(cmd.Path)
	}
	r := running{cmd.Process.Pid, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its own log
		close(r.ended)
	}()
	p.log.Info(p.name+" started", "pid", r.pid)
	return r, putFile(p.pid, []byte(strconv.Itoa(r.pid)+"\n"), 0o600)
}

// left returns the process of an earlier agent, 0 where there is none.
func (p *program) left() int {
	text, err := os.ReadFile(p.pid)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !runsWith(pid, p.config) {
		return 0
	}
	return pid
}

// runsWith says whether a process that lives was started with a path among its arguments.
func runsWith(pid int, path string) bool {
	if pid <= 1 || syscall.Kill(pid, 0) == syscall.ESRCH {
		return false
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && strings.Contains(string(text), path)
}

func (p *program) foreign(pid int) running {
	r := running{pid, make(chan struct{})}
	go func() {
		defer close(r.ended)
		for runsWith(pid, p.config) {
			time.Sleep(250 * time.Millisecond)
		}
	}()
	return r
}

// follow returns when the program has ended, or ctx, or when it has been deaf for too long, and was killed.
func (p *program) follow(ctx context.Context, r running) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-r.ended:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p.healthy == nil {
			continue
		}
		if asked := time.Now(); p.healthy(ctx) || time.Since(asked) > 2*askTimeout { // this process itself was stopped
			heard = time.Now()
		} else if time.Since(heard) > p.deaf && ctx.Err() == nil {
			p.log.Error(p.name+" does not answer and is killed", "pid", r.pid, "silent_for", time.Since(heard).Round(time.Second))
			_ = syscall.Kill(r.pid, syscall.SIGKILL) // a failure means that it has ended
			p.await(r, killPatience)
			return
		}
	}
}

func (p *program) await(r running, patience time.Duration) bool {
	select {
	case <-r.ended:
		return true
	case <-time.After(patience):
		return false
	}
}

// stop ends the program in good order, or at once where that takes too long.
func (p *program) stop(r running) {
	_ = syscall.Kill(r.pid, syscall.SIGTERM) // failures mean that it has ended
	if !p.await(r, stopPatience) {
		p.log.Warn(p.name+" does not stop and is killed", "after", stopPatience)
		_ = syscall.Kill(r.pid, syscall.SIGKILL)
		p.await(r, killPatience)
	}
	p.note(0, nil)
	_ = os.Remove(p.pid)
}

// signal sends a signal to the program, where it runs.
func (p *program) signal(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs != 0 {
		_ = syscall.Kill(p.runs, signal)
	}
}
