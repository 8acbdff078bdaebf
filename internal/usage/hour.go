// Package usage counts the hours of a managed instance by its vCores and its role, and finds who works on one that was declared to be passive. What it
// counts lies in the schema twinspan of the maintenance database. docs/design/0033-usage.md has the reasons.
package usage

import (
	"slices"
	"time"
)

// The states of an hour.
const (
	// Passive: the whole hour the instance was a secondary, declared to be passive, and nobody worked on it.
	Passive = "passive"
	// Active: it is counted in full.
	Active = "active"
	// Unknown: it was declared to be passive, and part of the hour was not seen.
	Unknown = "unknown"
)

// The roles of an instance, from that which asks least of it to that which asks most; an hour has the last that it had.
const (
	Secondary  = "secondary"  // every link here has its secondary here
	Standalone = "standalone" // no link is here
	Primary    = "primary"    // at least one link has its primary here
)

func rank(role string) int { return slices.Index([]string{Secondary, Standalone, Primary}, role) }

// MaxGap is how long nobody may have looked for an hour to be known.
const MaxGap = 2 * time.Minute

// Look is what an instance is at a moment.
type Look struct {
	At      time.Time
	Tier    string
	VCores  int
	Storage int64 // what it may take; 0 where that was not declared
	Used    int64 // what it takes
	Role    string
	Passive bool // declared so
	// Unlogged says that somebody may have worked there unseen.
	Unlogged bool
}

// Hour is what was seen of an hour (UTC).
type Hour struct {
	Start    time.Time
	Tier     string
	VCores   int // the most: a change within an hour counts for all of it
	Storage  int64
	Used     int64
	Role     string
	Passive  bool // declared so whenever it was looked at
	First    time.Time
	Last     time.Time
	Gap      time.Duration // the longest time that was not seen, of those that have ended
	Unlogged bool
	Missing  bool // nothing at all was seen of it
}

// Add adds a look to its hour. before is the last look at all, zero where there was none.
func (h Hour) Add(l Look, before time.Time) Hour {
	if h.First.IsZero() {
		h = Hour{Start: h.Start, Role: l.Role, Passive: true, First: l.At, Last: l.At}
		if l.At.Sub(before) > MaxGap {
			h.Gap = l.At.Sub(h.Start)
		}
	}
	h.Gap = max(h.Gap, l.At.Sub(h.Last))
	h.Last, h.Tier = l.At, l.Tier
	h.VCores, h.Storage, h.Used = max(h.VCores, l.VCores), max(h.Storage, l.Storage), max(h.Used, l.Used)
	if rank(l.Role) > rank(h.Role) {
		h.Role = l.Role
	}
	h.Passive = h.Passive && l.Passive
	h.Unlogged = h.Unlogged || l.Unlogged
	return h
}

// State says what an hour was, or has been so far, and why it is not passive where it was declared so.
func (h Hour) State(unit time.Duration, voids int, now time.Time) (state, why string) {
	end := h.Start.Add(unit)
	if now.Before(end) {
		end = now
	}
	switch {
	case h.Missing && voids > 0: // the log told of it later
		return Active, "somebody worked on it"
	case h.Missing:
		return Unknown, "the agent was away"
	case !h.Passive:
		return Active, ""
	case h.Role != Secondary:
		return Active, "it was " + h.Role
	case voids > 0:
		return Active, "somebody worked on it"
	case h.Gap > MaxGap || end.Sub(h.Last) > MaxGap:
		return Unknown, "the agent did not see all of it"
	case h.Unlogged:
		return Unknown, "sessions were not logged"
	}
	return Passive, ""
}

// Void is somebody who worked on a passive instance.
type Void struct {
	Hour        time.Time
	Role        string
	Database    string
	Application string
	Client      string // address, or [local]
	First       time.Time
}

// Session is one of somebody's.
type Session struct {
	Role      string
	Superuser bool
	Monitor   bool // a member of pg_monitor
	Database  string
}

// Voids says whether a session is work on a passive instance. Monitoring is none, nor is what a superuser does in the maintenance
// database, as administration and backups do.
func (s Session) Voids(maintenance string) bool {
	return !s.Monitor && !(s.Superuser && s.Database == maintenance)
}
