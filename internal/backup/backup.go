// Package backup keeps a managed instance backed up: when which backup is made, what can be
// restored, and what is wrong. The copying itself is an Engine's (package pgbackrest).
// docs/design/0028-backups.md has the reasons.
package backup

import (
	"context"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
)

// Kind says what a backup copies.
type Kind string

// The kinds.
const (
	Full         Kind = "full" // everything
	Differential Kind = "diff" // what has changed since the last full one
	Incremental  Kind = "incr" // what has changed since the last of any kind
)

// Database is a database as a backup holds it.
type Database struct {
	Name string
	OID  uint32
}

// Set is one backup.
type Set struct {
	Label string
	Kind  Kind
	Needs []string // labels of the sets that it builds on
	Start time.Time
	Stop  time.Time // from here on it can be restored
	// From is the position at which its restore begins, To the one from which on it is whole.
	From, To lsn.LSN
	Bytes    int64 // of the instance
	Stored   int64 // in the repository, added by this backup
	Damaged  bool  // the engine met pages with wrong checksums while it made it
}

// Contents is what a repository holds of an instance.
type Contents struct {
	Sets []Set // by Stop
}

// Last returns the newest set of one of the kinds, of any without one.
func (c Contents) Last(kinds ...Kind) (Set, bool) {
	for i := len(c.Sets) - 1; i >= 0; i-- {
		if len(kinds) == 0 || contains(kinds, c.Sets[i].Kind) {
			return c.Sets[i], true
		}
	}
	return Set{}, false
}

// Before returns the newest set from which a moment can be reached.
func (c Contents) Before(moment time.Time) (Set, bool) {
	return c.newest(func(s Set) bool { return !reachable(s).After(moment) })
}

// BeforePosition returns the newest set from which a position can be reached.
func (c Contents) BeforePosition(at lsn.LSN) (Set, bool) {
	return c.newest(func(s Set) bool { return s.To <= at })
}

// Earlier returns the newest set that was complete before another.
func (c Contents) Earlier(than Set) (Set, bool) {
	return c.newest(func(s Set) bool { return s.Stop.Before(than.Stop) && s.To < than.To })
}

func (c Contents) newest(reaches func(Set) bool) (Set, bool) {
	for _, s := range slices.Backward(c.Sets) {
		if reaches(s) {
			return s, true
		}
	}
	return Set{}, false
}

func contains(kinds []Kind, k Kind) bool {
	for _, one := range kinds {
		if one == k {
			return true
		}
	}
	return false
}

// Finding is something damaged in a repository.
type Finding struct {
	Set  string // label; "" for log
	Text string // what is wrong, for people
}

// Report is what a verification read and found.
type Report struct {
	Sets     int // looked at
	Segments int // of log
	Findings []Finding
}

// Engine keeps the backups in one repository. Its methods may not be called at the same time except Contents, Segments, Segment,
// Push and Check. They return problems with the codes of the catalogue's area "Backups", about the repository.
type Engine interface {
	// Prepare finds the program and makes the repository where there is none. It is called before anything else, and again
	// after every failure.
	Prepare(ctx context.Context) error
	// Check copies the segment of the log named, which the server could not get rid of, and so tells why.
	Check(ctx context.Context, segment string) error
	// Backup makes a backup and returns when it is complete; then, with expire, it removes what the policy keeps no longer.
	Backup(ctx context.Context, kind Kind, expire bool) error
	// Expire removes what the policy keeps no longer.
	Expire(ctx context.Context) error
	Contents(ctx context.Context) (Contents, error)
	// Verify reads everything in the repository.
	Verify(ctx context.Context) (Report, error)
	// Segments lists the names of the segments of log in the repository, in order.
	Segments(ctx context.Context) ([]string, error)
	// Segment brings a file of the log, by its name, out of the repository into a file; Push brings a file of that name into it.
	Segment(ctx context.Context, name, file string) error
	Push(ctx context.Context, file string) error
	// Owed lists the files of the log that the repository has missed while others had them. As long as it is owed any it is left out
	// when log is archived. With lift it is not left out any more; what it returns then is what is owed until Paid is called.
	Owed(lift bool) ([]string, error)
	// Paid notes that the repository has what Owed listed last with lift.
	Paid() error
	// Forget removes what the engine knows of its repository, which is not the policy's any more.
	Forget() error
}
