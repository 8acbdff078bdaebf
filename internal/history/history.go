// Package history keeps what a link did lately in a ring on disk: one file of fixed size
// for each link, which charts are drawn from (docs/design/0036-web.md). It is no record:
// what a killed process had not written, or a torn write spoiled, is a gap in a chart.
package history

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// Every is the time between two samples, and Kept how many a ring holds: two hours.
const (
	Every = 5 * time.Second
	Kept  = 1440
)

// A record is 64 bytes: the CRC-32 of the rest, the phase's place in phases, three bytes of
// zero, the time in milliseconds since 1970, and six floating-point numbers, NaN for what
// was not known; all of it little endian. docs/design/0036-web.md has it as a picture.
const (
	recordBytes = 64
	values      = 6
)

// phases are the phases by their number on disk. New ones go to the end.
var phases = []api.Phase{"", api.Creating, api.Seeding, api.CatchingUp, api.Replicating, api.Suspended, api.FailingOver, api.Fenced, api.Broken}

// Ring holds the newest samples of one link. It is safe for concurrent use.
type Ring struct {
	mu      sync.Mutex
	file    *os.File
	samples []api.HistorySample // oldest first
	next    int                 // place of the next record in the file
}

// Open opens the ring of the link with the id in a directory, which it makes. Records that
// cannot be read are left out.
func Open(dir, id string) (*Ring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritten(err)
	}
	f, err := os.OpenFile(path(dir, id), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritten(err)
	}
	text, err := io.ReadAll(io.LimitReader(f, Kept*recordBytes))
	if err != nil {
		f.Close()
		return nil, unwritten(err)
	}
	r := &Ring{file: f}
	var newest time.Time
	for i := 0; (i+1)*recordBytes <= len(text); i++ {
		s, ok := decode([recordBytes]byte(text[i*recordBytes:]))
		if !ok {
			continue
		}
		if r.samples = append(r.samples, s); s.At.After(newest) {
			newest, r.next = s.At, (i+1)%Kept
		}
	}
	slices.SortFunc(r.samples, func(a, b api.HistorySample) int { return a.At.Compare(b.At) })
	return r, nil
}

// Remove removes the ring of a link that is gone. One that does not exist is no error.
func Remove(dir, id string) error {
	if err := os.Remove(path(dir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return unwritten(err)
	}
	return nil
}

// path is where the ring of a link lies; ids are UUIDs, and nothing else is made a path of.
func path(dir, id string) string { return filepath.Join(dir, filepath.Base(id)) }

// Append adds a sample in the place of the oldest. A sample that is not younger than the
// newest, as after a clock was set back, begins the ring anew.
func (r *Ring) Append(s api.HistorySample) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.samples); n > 0 && !s.At.After(r.samples[n-1].At) {
		if err := r.file.Truncate(0); err != nil {
			return unwritten(err)
		}
		r.samples, r.next = nil, 0
	}
	record := encode(s)
	if _, err := r.file.WriteAt(record[:], int64(r.next)*recordBytes); err != nil {
		return unwritten(err)
	}
	r.next = (r.next + 1) % Kept
	if r.samples = append(r.samples, s); len(r.samples) > Kept {
		r.samples = slices.Delete(r.samples, 0, len(r.samples)-Kept)
	}
	return nil
}

// Since returns the samples that are younger than a moment, oldest first.
func (r *Ring) Since(t time.Time) []api.HistorySample {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.samples, t, func(s api.HistorySample, t time.Time) int {
		if s.At.After(t) {
			return 1
		}
		return -1
	})
	return slices.Clone(r.samples[i:])
}

// Close closes the file. The ring is not used afterwards.
func (r *Ring) Close() error { return r.file.Close() }

// Of is the sample of a view of a link.
func Of(l api.Link, at time.Time) api.HistorySample {
	s := api.HistorySample{At: at.UTC().Truncate(time.Millisecond), Phase: l.Phase, LagSeconds: l.Lag.Seconds, LagBytes: l.Lag.Bytes}
	if r := l.Rates; r != nil {
		s.TransactionsPerSecond, s.ChangesPerSecond, s.BytesPerSecond = &r.TransactionsPerSecond, &r.ChangesPerSecond, &r.BytesPerSecond
	}
	if l.Phase == api.Seeding && l.Seeding.TablesTotal > 0 {
		rate := float64(l.Seeding.BytesPerSecond)
		s.SeedBytesPerSecond = &rate
	}
	return s
}

func encode(s api.HistorySample) (record [recordBytes]byte) {
	record[4] = byte(max(0, slices.Index(phases, s.Phase)))
	binary.LittleEndian.PutUint64(record[8:], uint64(s.At.UnixMilli()))
	var lag *float64
	if s.LagBytes != nil {
		v := float64(*s.LagBytes) // exact up to 2^53 bytes
		lag = &v
	}
	for i, v := range [values]*float64{s.LagSeconds, lag, s.TransactionsPerSecond, s.ChangesPerSecond, s.BytesPerSecond, s.SeedBytesPerSecond} {
		n := math.NaN()
		if v != nil {
			n = *v
		}
		binary.LittleEndian.PutUint64(record[16+8*i:], math.Float64bits(n))
	}
	binary.LittleEndian.PutUint32(record[:], crc32.ChecksumIEEE(record[4:]))
	return record
}

func decode(record [recordBytes]byte) (s api.HistorySample, ok bool) {
	if binary.LittleEndian.Uint32(record[:]) != crc32.ChecksumIEEE(record[4:]) || int(record[4]) >= len(phases) {
		return s, false
	}
	s.Phase = phases[record[4]]
	s.At = time.UnixMilli(int64(binary.LittleEndian.Uint64(record[8:]))).UTC()
	var lag *float64
	for i, v := range [values]**float64{&s.LagSeconds, &lag, &s.TransactionsPerSecond, &s.ChangesPerSecond, &s.BytesPerSecond, &s.SeedBytesPerSecond} {
		if n := math.Float64frombits(binary.LittleEndian.Uint64(record[16+8*i:])); !math.IsNaN(n) && !math.IsInf(n, 0) {
			*v = &n
		}
	}
	if lag != nil {
		n := int64(*lag)
		s.LagBytes = &n
	}
	return s, true
}

func unwritten(err error) error {
	return problem.Wrap(err, problem.Resource, "history_unwritten", "keep the history of a link").
		WithHint("see that the directory history of the agent can be written and that its disk has space")
}
