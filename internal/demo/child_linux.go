package demo

import (
	"os"
	"syscall"
)

// childAttributes keep an interrupt from the terminal away from the agents, which
// are stopped in order, and have them end with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
