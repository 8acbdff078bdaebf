//go:build !linux

package demo

import (
	"os"
	"syscall"
)

// childAttributes keep an interrupt from the terminal away from the agents, which
// are stopped in order. Only Linux can have them end with a killed parent.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
