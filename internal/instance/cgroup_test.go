package instance

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeGroup makes a directory as the kernel's of a control group.
func fakeGroup(t *testing.T, controllers, procs string) groups {
	t.Helper()
	own := t.TempDir()
	for _, dir := range []string{"", agentGroup, serverGroup} {
		if err := os.MkdirAll(filepath.Join(own, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.procs": procs} {
		if err := os.WriteFile(filepath.Join(own, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return groups{own: own, pid: 77}
}

func TestConfineWritesTheLimits(t *testing.T) {
	g := fakeGroup(t, "cpuset cpu io memory pids\n", "77\n")
	server, err := g.confine(Limits{CPUs: 2, Memory: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(server, "cpu.max"):                 "200000 100000",
		filepath.Join(server, "memory.max"):              "8589934592",
		filepath.Join(g.own, "cgroup.subtree_control"):   "+cpu +memory",
		filepath.Join(g.own, agentGroup, "cgroup.procs"): "77",
	} {
		if text, err := os.ReadFile(file); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v; want %q", file, text, err, want)
		}
	}
	// A second time this process is found in the agent's group.
	if err := os.WriteFile(filepath.Join(g.own, "cgroup.procs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	again := groups{own: filepath.Join(g.own, agentGroup), pid: 77}
	if dir, err := again.confine(Limits{}); err != nil || dir != server {
		t.Fatalf("%s, %v", dir, err)
	}
	if text, _ := os.ReadFile(filepath.Join(server, "memory.max")); string(text) != "max" {
		t.Errorf("memory.max is %q", text)
	}
}

func TestConfineSaysWhyNot(t *testing.T) {
	for _, c := range []struct{ controllers, procs, want string }{
		{"cpu pids", "77", "no controllers"},
		{"", "77", "no controllers"},
		{"cpu memory", "77\n78\n", "others share"},
	} {
		g := fakeGroup(t, c.controllers, c.procs)
		if _, err := g.confine(Limits{CPUs: 1}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if text, err := os.ReadFile(filepath.Join(g.own, "cgroup.subtree_control")); err == nil {
			t.Errorf("%+v: subtree_control is %q", c, text)
		}
	}
	const mounts = "34 27 0:29 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n35 27 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	if got := mountOf(mounts); got != "/sys/fs/cgroup/unified" {
		t.Errorf("mounted at %q", got)
	}
	if got := mountOf("x\n1 2 0:3 / / rw - ext4 /dev/vda rw\n"); got != "" {
		t.Errorf("mounted at %q", got)
	}
	s := &Server{}
	if leave := s.enterGroup(&syscall.SysProcAttr{}); s.Confined() || leave == nil {
		t.Error("a server without a group is confined")
	}
}
