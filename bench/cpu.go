package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tick is what the kernel counts CPU time in (sysconf(_SC_CLK_TCK) is 100 on
// every Linux that matters).
const tick = 0.01

// process is a line of /proc/PID/stat, as far as it is needed.
type process struct {
	pid, parent int
	own         float64 // CPU seconds of it
	reaped      float64 // and of its children that ended
}

func stat(pid int) (process, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 15 {
		return process{}, false
	}
	n := func(i int) float64 { v, _ := strconv.ParseFloat(f[i], 64); return v * tick }
	parent, _ := strconv.Atoi(f[1])
	return process{pid: pid, parent: parent, own: n(11) + n(12), reaped: n(13) + n(14)}, true
}

// treeCPU is the CPU time of a process, its living descendants and those that ended.
func treeCPU(root int) float64 {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	children := map[int][]process{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := stat(pid); ok {
				children[p.parent] = append(children[p.parent], p)
			}
		}
	}
	var sum func(p process) float64
	sum = func(p process) float64 {
		total := p.own + p.reaped
		for _, c := range children[p.pid] {
			total += sum(c)
		}
		return total
	}
	p, _ := stat(root)
	return sum(p)
}

// ownCPU is the CPU time of processes by themselves.
func ownCPU(pids ...int) (total float64) {
	for _, pid := range pids {
		p, _ := stat(pid)
		total += p.own
	}
	return total
}

// memory returns what a process holds now and held at most, in bytes.
func memory(pid int) (now, peak int64) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			now = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			peak = kb << 10
		}
	}
	return now, peak
}

// usage is the CPU time that a case spends, by part.
type usage struct {
	source, target, others float64
}

// meter measures usage from now on. The benchmark's own backends are left out.
type meter struct {
	r      *rig
	pids   []int // agents
	own    []int // backends of the benchmark itself, on b
	before usage
}

func (r *rig) measure(pids, own []int) *meter {
	m := &meter{r: r, pids: pids, own: own}
	m.before = m.read()
	return m
}

func (m *meter) read() usage {
	return usage{source: treeCPU(m.r.a.PID()), target: treeCPU(m.r.b.PID()) - ownCPU(m.own...), others: ownCPU(m.pids...)}
}

func (m *meter) spent() usage {
	now := m.read()
	return usage{now.source - m.before.source, now.target - m.before.target, now.others - m.before.others}
}
