package link

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/problem"
)

// spilled is a record that is too large for memory: a file without a name, mapped.
// Its pages are the system's to drop, and are dropped as they have been used, so
// a row of hundreds of megabytes does not count as the agent's memory.
type spilled struct {
	data []byte
	done int
}

// spill reads a record of the length into a file of the directory.
func spill(dir string, from io.Reader, length int) (*spilled, error) {
	f, err := os.CreateTemp(dir, "record-*")
	if err != nil {
		return nil, spoolProblem(err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, spoolProblem(err)
	}
	if err := write(f, from, length); err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, length, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, spoolProblem(err)
	}
	return &spilled{data: data}, nil
}

func write(f *os.File, from io.Reader, length int) error {
	b := make([]byte, 256<<10)
	for left := length; left > 0; {
		n, err := from.Read(b[:min(left, len(b))])
		if n > 0 {
			if _, err := f.Write(b[:n]); err != nil {
				return spoolProblem(err)
			}
			left -= n
		}
		if err != nil && left > 0 {
			return err
		}
	}
	return nil
}

func spoolProblem(err error) error {
	p := problem.Wrap(err, problem.Transient, "spool_unusable", "keep a large value on the agent's disk")
	if errors.Is(err, syscall.ENOSPC) {
		p.Code = "spool_full"
		p.Hint = "free space in the agent's directory: it needs as much as the largest row"
	}
	return p
}

// Bytes returns the record. It is valid until Close.
func (s *spilled) Bytes() []byte { return s.data }

// Done lets go of the memory of what lies before upTo; the bytes remain readable.
func (s *spilled) Done(upTo int) {
	page := os.Getpagesize()
	to := min(upTo, len(s.data)) / page * page
	if to > s.done {
		// Advice only: if the system does not take it, memory is freed at Close.
		_ = unix.Madvise(s.data[s.done:to], unix.MADV_DONTNEED)
		s.done = to
	}
}

// Close frees the record and its file.
func (s *spilled) Close() error { return unix.Munmap(s.data) }
