package demo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// output collects what a demonstration prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// started runs "twinspan demo" in a process of its own, in a directory of its own.
func started(t *testing.T, args ...string) (cmd *exec.Cmd, dir string, out *output) {
	t.Helper()
	dir = filepath.Join(pgtest.Dir(t), "demo")
	out = &output{}
	cmd = exec.Command(os.Args[0], append([]string{"demo", "--no-ui", "--dir", dir}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		gone(t, dir)
	})
	return cmd, dir, out
}

// printed waits until the demonstration has said something.
func printed(t *testing.T, out *output, want string) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		if !strings.Contains(out.String(), want) {
			return fmt.Errorf("it did not say %q:\n%s", want, out)
		}
		return nil
	})
}

// gone waits until no agent and no server of the demonstration is left.
func gone(t *testing.T, dir string) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		for _, name := range []string{"a", "b"} {
			d := config.Dir(filepath.Join(dir, name))
			if _, err := os.Stat(d.Run()); errors.Is(err, os.ErrNotExist) {
				continue
			}
			lock, err := d.Lock()
			if err != nil {
				return err
			}
			if err := lock.Release(); err != nil {
				return err
			}
			data := filepath.Join(d.Instance(), "data")
			text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
			if err != nil {
				continue
			}
			line, _, _ := strings.Cut(string(text), "\n")
			pid, err := strconv.Atoi(line)
			if err != nil {
				return fmt.Errorf("postmaster.pid of %s: %w", name, err)
			}
			// The number may be another process's by now; a server works in its directory.
			if at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && at == data {
				return fmt.Errorf("the server of %s, process %d, is still there", name, pid)
			}
		}
		return nil
	})
}

func TestDemonstrationProvesTheTwinAndEndsByItself(t *testing.T) {
	cmd, dir, out := started(t, "--exit-after", "1s")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"Peers by an invitation", "Linking while the workload runs", "copied under load", "Replicating", `"hello from a"`,
		"refused there: ", "link show shop --dir ", " ui --dir ", "psql -h ", "public.page_views", "6 tables", "the two sides are equal",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it did not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	gone(t, dir)
}

func TestInterruptWhileSeedingEndsEverything(t *testing.T) {
	cmd, dir, out := started(t)
	printed(t, out, "Linking while the workload runs")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "Interrupted") {
		t.Errorf("%v\n%s", err, out)
	}
	gone(t, dir)
}

// The kernel may send the signal of a parent's death more than once.
func TestAgentsStopTheirServersHoweverOftenTheyAreTold(t *testing.T) {
	cmd, dir, out := started(t)
	printed(t, out, "Filling")
	agents := children(t, cmd.Process.Pid)
	if len(agents) != 2 {
		t.Fatalf("agents: %v", agents)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Without a pause, for each moment of their stopping counts.
	for deadline := time.Now().Add(patience); len(agents) > 0; {
		agents = slices.DeleteFunc(agents, func(pid int) bool { return errors.Is(syscall.Kill(pid, syscall.SIGTERM), syscall.ESRCH) })
		if time.Now().After(deadline) {
			t.Fatalf("agents that do not end: %v", agents)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	gone(t, dir)
}

// children returns the processes that a process has started.
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name in parentheses may hold anything.
		after := string(text[bytes.LastIndexByte(text, ')')+1:])
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestKilledDemonstrationTakesItsServersAlongAndTheNextBeginsAfresh(t *testing.T) {
	cmd, dir, out := started(t)
	printed(t, out, "Filling")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	gone(t, dir)
	again := &output{}
	second := exec.Command(os.Args[0], "demo", "--no-ui", "--dir", dir)
	second.Stdout, second.Stderr = again, again
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	printed(t, again, "Filling")
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("%v\n%s", err, again)
	}
	gone(t, dir)
}
