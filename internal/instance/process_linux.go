package instance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// canSeeWorkers: whether anyWorksIn can tell.
const canSeeWorkers = true

// dieWithParent makes the kernel signal the child when the thread that
// started it ends (prctl(2), PR_SET_PDEATHSIG). The caller keeps that thread
// until the child has ended: see start. SIGQUIT is PostgreSQL's immediate
// shutdown: the postmaster takes all its children with it, and waits for nobody.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// worksIn says whether a live process is one of PostgreSQL's and has the
// directory as its working directory, as every process of a server has its
// data directory. A zombie has none; an administrator's shell is none.
func worksIn(pid int, dir string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	name, err := os.ReadFile(proc + "/comm")
	if err != nil || !strings.HasPrefix(string(name), "post") {
		return false
	}
	cwd, err := os.Stat(proc + "/cwd")
	if err != nil {
		return false
	}
	want, err := os.Stat(dir)
	return err == nil && os.SameFile(cwd, want)
}

// anyWorksIn says whether any process of PostgreSQL works in the directory.
func anyWorksIn(dir string) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && worksIn(pid, dir) {
			return true
		}
	}
	return false
}

// memory returns the machine's memory in bytes, 0 when unknown.
func memory() uint64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// endWithParent is dieWithParent for a program that is asked to end (SIGTERM).
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }

// workedIn says whether a live process has a working directory of that path, which may have been removed meanwhile.
func workedIn(pid int, dir string) bool {
	at, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && strings.TrimSuffix(at, " (deleted)") == dir
}

// enterGroup has a child begin in the server's control group, if there is one (clone3(2), CLONE_INTO_CGROUP, Linux 5.7). leave is called
// when it was started.
func (s *Server) enterGroup(attr *syscall.SysProcAttr) (leave func()) {
	s.mu.Lock()
	group := s.group
	s.mu.Unlock()
	if group == "" {
		return func() {}
	}
	dir, err := os.Open(filepath.Clean(group))
	if err != nil {
		s.log().Warn("the server starts outside of its control group", "err", err)
		return func() {}
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() { dir.Close() }
}
