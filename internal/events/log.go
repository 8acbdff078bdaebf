// Package events is an agent's record of what happened: the files that keep it, and the
// rules by which views of before and of now become events (docs/design/0031-events.md).
package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// fileBytes is how large a file gets, filesKept how many there are.
	fileBytes = 2 << 20
	filesKept = 8
	// recentKept is how many of the newest events are read from memory.
	recentKept = 1000
	// mostText and mostName bound, in bytes, what one event holds.
	mostText = 2000
	mostName = 300
)

// Log keeps events in the files of a directory. It is safe for concurrent use.
type Log struct {
	dir       string
	fileBytes int64
	filesKept int

	mu     sync.Mutex
	files  []file // oldest first
	open   *os.File
	last   int64
	recent []api.Event   // the newest, in order
	grown  chan struct{} // closed and replaced when an event is appended
}

// file is one of the files: its first number is its name.
type file struct {
	first int64
	bytes int64
}

const suffix = ".jsonl"

func (l *Log) path(first int64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%019d%s", first, suffix))
}

// Open opens the record in a directory, which it makes. The caller sees to it that no other
// process does. What a killed process left of a last line is cut off.
func Open(dir string) (*Log, error) { return openSized(dir, fileBytes, filesKept) }

func openSized(dir string, bytes int64, kept int) (*Log, error) {
	l := &Log{dir: dir, fileBytes: bytes, filesKept: kept, grown: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritten(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, unwritten(err)
	}
	for _, e := range entries {
		var first int64
		if n, err := fmt.Sscanf(e.Name(), "%d"+suffix, &first); err != nil || n != 1 || l.path(first) != filepath.Join(dir, e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, unwritten(err)
		}
		l.files = append(l.files, file{first, info.Size()})
	}
	slices.SortFunc(l.files, func(a, b file) int { return int(max(-1, min(1, a.first-b.first))) })
	for i := len(l.files) - 1; i >= 0; i-- {
		l.last = max(l.last, l.files[i].first-1) // also where nothing of it can be read
	}
	if n := len(l.files); n > 0 {
		if err := l.continueFile(&l.files[n-1]); err != nil {
			return nil, err
		}
		for _, f := range l.files[max(0, n-2):] {
			err := l.scan(f, func(e api.Event) bool {
				l.remember(e)
				return true
			})
			if err != nil {
				l.open.Close()
				return nil, err
			}
		}
	}
	return l, nil
}

// continueFile opens the newest file, and cuts off a line that was not finished.
func (l *Log) continueFile(f *file) error {
	text, err := os.ReadFile(l.path(f.first))
	if err != nil {
		return unwritten(err)
	}
	whole := int64(bytes.LastIndexByte(text, '\n') + 1)
	if l.open, err = os.OpenFile(l.path(f.first), os.O_WRONLY, 0o600); err != nil {
		return unwritten(err)
	}
	if err = l.open.Truncate(whole); err == nil {
		err = l.open.Chmod(0o600)
	}
	if err != nil {
		l.open.Close()
		return unwritten(err)
	}
	f.bytes = whole
	return nil
}

// Close closes the record.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return nil
	}
	err := l.open.Close()
	l.open = nil
	return err
}

// Append writes an event behind the others and returns it with its number. When that fails
// nothing of it is in the record.
func (l *Log) Append(e api.Event) (api.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e = Bounded(e)
	e.Number = l.last + 1
	text, err := json.Marshal(e)
	if err != nil {
		return e, problem.Wrap(err, problem.Internal, "internal", "write an event")
	}
	text = append(text, '\n')
	if err := l.room(int64(len(text)), e.Number); err != nil {
		return e, err
	}
	f := &l.files[len(l.files)-1]
	if _, err := l.open.WriteAt(text, f.bytes); err != nil {
		// What was written of it lies behind the end that is known: the next event is
		// written over it, and a next start cuts it off.
		_ = l.open.Truncate(f.bytes)
		return e, unwritten(err)
	}
	f.bytes += int64(len(text))
	l.remember(e)
	close(l.grown)
	l.grown = make(chan struct{})
	return e, nil
}

// room begins another file where the newest is full, and removes the oldest.
func (l *Log) room(bytes, number int64) error {
	n := len(l.files)
	if l.open != nil && n > 0 && (l.files[n-1].bytes == 0 || l.files[n-1].bytes+bytes <= l.fileBytes) {
		return nil
	}
	next, err := os.OpenFile(l.path(number), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return unwritten(err)
	}
	if l.open != nil {
		_ = l.open.Close() // nothing is buffered
	}
	l.open = next
	l.files = append(l.files, file{first: number})
	for len(l.files) > l.filesKept {
		// One that stays is in nobody's way: it is found at the next start.
		_ = os.Remove(l.path(l.files[0].first))
		l.files = slices.Delete(l.files, 0, 1)
	}
	return nil
}

func (l *Log) remember(e api.Event) {
	l.last = max(l.last, e.Number)
	if len(l.recent) >= 2*recentKept {
		l.recent = slices.Delete(l.recent, 0, len(l.recent)-recentKept)
	}
	l.recent = append(l.recent, e)
}

// Sync makes what was appended durable, also against the end of the machine.
func (l *Log) Sync() error {
	l.mu.Lock()
	f := l.open
	l.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return unwritten(err)
	}
	return nil
}

// Grown returns a channel that is closed when an event is appended.
func (l *Log) Grown() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grown
}

// Each calls f with every event that is kept, in order, until it returns false.
func (l *Log) Each(f func(api.Event) bool) error { return l.behind(0, f) }

// behind calls f with the events behind a number.
func (l *Log) behind(after int64, f func(api.Event) bool) error {
	l.mu.Lock()
	files, recent := slices.Clone(l.files), l.recent
	if len(recent) > 0 && recent[0].Number <= after+1 {
		files, recent = nil, slices.Clone(recent)
	}
	l.mu.Unlock()
	if files == nil {
		for _, e := range recent {
			if e.Number > after && !f(e) {
				return nil
			}
		}
		return nil
	}
	on := true
	for i, one := range files {
		if i+1 < len(files) && files[i+1].first <= after+1 {
			continue
		}
		err := l.scan(one, func(e api.Event) bool {
			on = e.Number <= after || f(e)
			return on
		})
		if err != nil || !on {
			return err
		}
	}
	return nil
}

// scan calls f with the events of a file, as far as it was written when it was looked at. A
// line that cannot be read is passed by; a file that was removed meanwhile has none.
func (l *Log) scan(of file, f func(api.Event) bool) error {
	in, err := os.Open(l.path(of.first))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unread(err)
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, of.bytes))
	if err != nil {
		return unread(err)
	}
	for line := range bytes.Lines(text) {
		var e api.Event
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &e) != nil || e.Number < of.first {
			continue
		}
		if !f(e) {
			return nil
		}
	}
	return nil
}

func unwritten(err error) error {
	return problem.Wrap(err, problem.Resource, "events_unwritten", "keep the agent's events").
		WithHint("see to the space and the owner of the directory events in the agent's directory; events wait in memory until it can be written")
}

func unread(err error) error {
	return problem.Wrap(err, problem.Resource, "events_unread", "read the agent's events").
		WithHint("see to the directory events in the agent's directory")
}

// Bounded is an event as it is kept: of bounded length, on one line, and without the value
// of a key that the subject of a problem may have.
func Bounded(e api.Event) api.Event {
	e.At = e.At.UTC()
	e.Subject = withoutKey(e.Subject)
	for _, s := range []*string{&e.Link, &e.Database, &e.Peer, &e.Subject, &e.Step, &e.By.Name, &e.By.Address, &e.Request} {
		*s = clipped(*s, mostName)
	}
	e.Text, e.Details = clipped(e.Text, mostText), clipped(e.Details, mostText)
	return e
}

// withoutKey leaves out the columns and the value of a key, which follow a table's name as
// (id) = (5).
func withoutKey(subject string) string {
	before, _, found := strings.Cut(subject, ") = (")
	if !found {
		return subject
	}
	table, _, _ := strings.Cut(before, " (")
	return table
}

// clipped makes one line of a text, of so many bytes at most.
func clipped(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < 0x20 || r == 0x7f:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) <= most {
		return s
	}
	for most -= len("..."); most > 0 && !utf8.RuneStart(s[most]); most-- {
	}
	return s[:most] + "..."
}
