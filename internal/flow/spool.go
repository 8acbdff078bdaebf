package flow

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/problem"
)

// SpoolBudget is how much disk the values of all links of an agent may take at
// once, each of which is at most a gigabyte. A link whose value does not fit
// waits until others are applied.
const SpoolBudget = 4 << 30

// TransactionBudget is how much disk streamed transactions of all links that are not
// finished, or wait to be applied, take at most where nothing else is configured. They are compressed there.
const TransactionBudget = 16 << 30

// diskReserve is how much of the disk they leave free, which the server may need.
const diskReserve = 1 << 30

// Spool is where values and transactions too large for memory pass through, and dumps. Files
// of the former have no names: whatever ends the agent, nothing is left. Who makes the
// directory clears it of the latter.
type Spool struct {
	dir          string
	budget       *semaphore.Weighted
	transactions transactionBudget
}

// NewSpool returns a spool in a directory that exists. transactions is how many bytes of
// streamed transactions it takes; 0 means TransactionBudget.
func NewSpool(dir string, transactions int64) *Spool {
	if transactions == 0 {
		transactions = TransactionBudget
	}
	return &Spool{
		dir: dir, budget: semaphore.NewWeighted(SpoolBudget),
		transactions: transactionBudget{Weighted: semaphore.NewWeighted(transactions), dir: dir},
	}
}

// transactionBudget implements reorder.Budget.
type transactionBudget struct {
	*semaphore.Weighted
	dir string
}

// TryAcquire takes n bytes unless there are no more, or the disk is nearly full.
func (b *transactionBudget) TryAcquire(n int64) bool {
	var disk unix.Statfs_t
	if err := unix.Statfs(b.dir, &disk); err == nil && int64(disk.Bavail)*disk.Bsize < n+diskReserve {
		return false
	}
	return b.Weighted.TryAcquire(n)
}

// Dir returns the directory.
func (s *Spool) Dir() string { return s.dir }

// spilled is a record that is too large for memory: a file without a name, mapped.
// Its pages are the system's to drop, and are dropped as they have been used, so
// a row of hundreds of megabytes does not count as the agent's memory.
type spilled struct {
	data    []byte
	done    int
	release func()
}

// Keep reads a record of the length into a file. It waits for room in the budget. The caller
// closes what it returns.
func (s *Spool) Keep(ctx context.Context, from io.Reader, length int) (apply.Big, error) {
	if err := s.budget.Acquire(ctx, int64(length)); err != nil {
		return nil, err
	}
	record, err := s.store(from, length)
	if err != nil {
		s.budget.Release(int64(length))
		return nil, err
	}
	record.release = func() { s.budget.Release(int64(length)) }
	return record, nil
}

// keepOne is Keep for a record that is applied before any other of its link: it must not
// wait for room that those behind it have taken, and takes none.
func (s *Spool) keepOne(_ context.Context, from io.Reader, length int) (apply.Big, error) {
	record, err := s.store(from, length)
	if err != nil {
		return nil, err
	}
	record.release = func() {}
	return record, nil
}

func (s *Spool) store(from io.Reader, length int) (*spilled, error) {
	f, err := os.CreateTemp(s.dir, "record-*")
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
func (s *spilled) Close() error {
	defer s.release()
	return unix.Munmap(s.data)
}
