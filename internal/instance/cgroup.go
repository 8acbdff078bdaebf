package instance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// Limits are what the kernel holds a server's processes to, together. What is 0 is not limited.
type Limits struct {
	CPUs   int   // processors' worth of time
	Memory int64 // bytes, the page cache of its files included
}

// serverGroup and agentGroup are the control groups below the agent's own: one that has processes may not share out
// its controllers (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
const (
	serverGroup = "server"
	agentGroup  = "agent"
)

// groups is the part of the hierarchy of cgroup v2 that is this process's.
type groups struct {
	own string // directory of the group in which this process began
	pid int
}

// ownGroups finds this process's control group. Its error says what is missing.
func ownGroups() (groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return groups{}, errors.New("this system has no control groups")
	}
	mount := mountOf(string(mounts))
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || mount == "" {
		return groups{}, errors.New("this machine has no cgroup v2")
	}
	for line := range strings.Lines(string(text)) {
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
			return groups{own: filepath.Join(mount, path), pid: os.Getpid()}, nil
		}
	}
	return groups{}, errors.New("this machine has no cgroup v2")
}

// mountOf returns where cgroup v2 is mounted, by the text of a mountinfo file (proc(5)).
func mountOf(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if found && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4]
		}
	}
	return ""
}

// confine makes the group of the server with its limits, and returns its directory. It moves this process into a
// group beside it. Its error says why it cannot be.
func (g groups) confine(l Limits) (string, error) {
	if filepath.Base(g.own) == agentGroup { // confine was called before
		g.own = filepath.Dir(g.own)
	}
	controllers, err := os.ReadFile(filepath.Join(g.own, "cgroup.controllers"))
	have := strings.Fields(string(controllers))
	if err != nil || !slices.Contains(have, "cpu") || !slices.Contains(have, "memory") {
		return "", errors.New("the agent's control group has no controllers cpu and memory of its own")
	}
	procs, err := os.ReadFile(filepath.Join(g.own, "cgroup.procs"))
	if err != nil {
		return "", errors.New("the agent's control group cannot be read")
	}
	for _, pid := range strings.Fields(string(procs)) {
		if pid != strconv.Itoa(g.pid) {
			return "", errors.New("others share the agent's control group")
		}
	}
	refused := errors.New("the agent may not change its control group")
	agent, server := filepath.Join(g.own, agentGroup), filepath.Join(g.own, serverGroup)
	for _, dir := range []string{agent, server} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", refused
		}
	}
	put := func(file, text string) bool { return os.WriteFile(file, []byte(text), 0o644) == nil }
	if !put(filepath.Join(agent, "cgroup.procs"), strconv.Itoa(g.pid)) || !put(filepath.Join(g.own, "cgroup.subtree_control"), "+cpu +memory") {
		return "", refused
	}
	cpu, memory := "max 100000", "max"
	if l.CPUs > 0 {
		cpu = fmt.Sprintf("%d 100000", l.CPUs*100000)
	}
	if l.Memory > 0 {
		memory = strconv.FormatInt(l.Memory, 10)
	}
	if !put(filepath.Join(server, "cpu.max"), cpu) || !put(filepath.Join(server, "memory.max"), memory) {
		return "", refused
	}
	return server, nil
}

// Confine has the kernel hold the server to limits, by a control group (cgroup v2) below the agent's own: at once where it runs in it
// already, and else from its next start on. Where that is not possible the problem, of code limits_unenforced, says why; then nothing but the
// server's settings bounds it.
func (s *Server) Confine(l Limits) error {
	s.mu.Lock()
	group := s.group
	s.mu.Unlock()
	if l == (Limits{}) && group == "" {
		return nil
	}
	g, err := ownGroups()
	if err == nil {
		group, err = g.confine(l)
	}
	if err != nil {
		return problem.New(problem.Incompatible, "limits_unenforced", "the kernel does not hold the server to its vCores and memory: %s", err).
			WithHint("run the agent as a service of systemd with Delegate=cpu memory (docs/instance.md), or do without: the settings of the server follow its size all the same")
	}
	s.mu.Lock()
	s.group = group
	s.mu.Unlock()
	return nil
}

// Confined says whether the server's processes are in the group that Confine made.
func (s *Server) Confined() bool {
	s.mu.Lock()
	group, pid := s.group, s.pid
	s.mu.Unlock()
	procs, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	return group != "" && pid != 0 && err == nil && slices.Contains(strings.Fields(string(procs)), strconv.Itoa(pid))
}
