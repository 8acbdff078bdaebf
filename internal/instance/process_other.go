//go:build !linux

package instance

import "syscall"

// canSeeWorkers: whether anyWorksIn can tell.
const canSeeWorkers = false

// dieWithParent does nothing where the kernel knows no such signal: a server
// whose agent was killed stays, and is taken over by the next.
func dieWithParent(*syscall.SysProcAttr) {}

// worksIn cannot be told here, so a live process is taken for the server:
// refusing to start beside it is the safe side.
func worksIn(pid int, _ string) bool { return alive(pid) }

// anyWorksIn cannot be told here; see worksIn.
func anyWorksIn(string) bool { return true }

// memory is not known here.
func memory() uint64 { return 0 }

// endWithParent: only Linux tells a child of its parent's end.
func endWithParent(*syscall.SysProcAttr) {}

// workedIn cannot be told here.
func workedIn(int, string) bool { return false }

// enterGroup does nothing: only Linux has control groups.
func (s *Server) enterGroup(*syscall.SysProcAttr) func() { return func() {} }
