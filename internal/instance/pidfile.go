package instance

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// pidFile is what postmaster.pid says (src/include/utils/pidfile.h). Fields
// that the server has not written yet are empty.
type pidFile struct {
	pid    int
	port   int
	socket string // directory of the first Unix socket
	listen string // first listen address
	status string // starting, stopping, ready or standby
}

// accepts says whether the server lets sessions in.
func (p pidFile) accepts() bool { return p.status == "ready" || p.status == "standby" }

// readPIDFile reads postmaster.pid of a data directory. A file that is not
// there, or not yet written, is the zero value.
func readPIDFile(data string) (pidFile, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return pidFile{}, nil
	}
	if err != nil {
		return pidFile{}, err
	}
	return parsePIDFile(string(text)), nil
}

func parsePIDFile(text string) pidFile {
	lines := strings.Split(text, "\n")
	line := func(n int) string {
		if n > len(lines) {
			return ""
		}
		return strings.TrimSpace(lines[n-1])
	}
	number := func(n int) int {
		v, err := strconv.Atoi(line(n))
		if err != nil {
			return 0
		}
		return v
	}
	pid := number(1)
	if pid < 0 {
		pid = -pid // a server in single-user mode
	}
	return pidFile{pid: pid, port: number(4), socket: line(5), listen: line(6), status: line(8)}
}

// alive says whether a process with the pid exists.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
