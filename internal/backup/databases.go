package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// saveEvery is how often the list is written when nothing but positions has changed.
const saveEvery = time.Minute

// mostDropped bounds the databases in the list that are there no more: the members of an instance
// share it as one file of a bounded size.
const mostDropped = 2000

// Known is a database that there is, or was.
type Known struct {
	Name string `json:"name"`
	OID  uint32 `json:"oid"`
	// Since is when it was seen first; zero when it was there before the list.
	Since time.Time `json:"since"`
	// Seen is when it was seen last, At a position at which it was there.
	Seen time.Time `json:"seen"`
	At   lsn.LSN   `json:"at"`
	// Gone is when it was first missed, GoneAt a position at which it was not there any more; both
	// are zero as long as it is there.
	Gone     time.Time `json:"gone"`
	GoneAt   lsn.LSN   `json:"goneAt"`
	Timeline uint32    `json:"timeline"` // of the positions
	// Limit is its limit of connections, which DROP DATABASE overwrites, where LimitSeen.
	Limit     int32 `json:"limit"`
	LimitSeen bool  `json:"limitSeen"`
}

// Dropped says whether it is there no more.
func (d Known) Dropped() bool { return !d.Gone.IsZero() }

// databases is what the keeper knows of them; Keeper.mu guards it.
type databases struct {
	pulse  pulse
	known  []Known
	ready  bool // the list was begun
	before map[uint32]sightedAt
	saved  time.Time
}

// sightedAt is where a database was seen the time before.
type sightedAt struct {
	at   lsn.LSN
	when time.Time
}

func (k *Keeper) databasesFile() string { return filepath.Join(k.Dir, "databases.json") }

// readDatabases reads the list, and says whether there is one.
func (k *Keeper) readDatabases() (list []Known, listed bool, err error) {
	text, err := os.ReadFile(k.databasesFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		return nil, false, problem.Wrap(err, problem.Invalid, "backup_list_broken", "the list of databases cannot be read").On(k.databasesFile()).
			WithHint("mend the file, or remove it: databases that were dropped before are then restorable by time alone")
	}
	return list, true, nil
}

// noteDatabases takes a look at the server into the list.
func (k *Keeper) noteDatabases(s sight) error {
	k.mu.Lock()
	first := !k.ready
	next, seen, changed := merge(k.databases.known, k.before, s, first)
	next = bounded(next)
	k.databases.known, k.before, k.ready = next, seen, true
	due := changed || first || s.at.Sub(k.saved) >= saveEvery
	list := slices.Clone(next)
	k.mu.Unlock()
	if !due {
		return nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "write the list of databases")
	}
	if err := k.Put(k.databasesFile(), append(text, '\n')); err != nil {
		return err
	}
	k.mu.Lock()
	k.saved = s.at
	k.mu.Unlock()
	return nil
}

// bounded leaves out what was dropped first, where too much was.
func bounded(list []Known) []Known {
	order := func(a, b Known) int { return cmp.Or(a.Gone.Compare(b.Gone), cmp.Compare(a.OID, b.OID)) }
	gone := slices.DeleteFunc(slices.Clone(list), func(d Known) bool { return !d.Dropped() })
	if len(gone) <= mostDropped {
		return list
	}
	slices.SortFunc(gone, order)
	first := gone[len(gone)-mostDropped] // of those that stay
	return slices.DeleteFunc(list, func(d Known) bool { return d.Dropped() && order(d, first) < 0 })
}

// merge takes a look at the server into a list, and says whether a database came, went or has another name. A database is
// taken to have been there only where it was seen the time before and is seen now: the record of a DROP
// lies before its commit, so that the last look may have seen what was being dropped.
func merge(known []Known, before map[uint32]sightedAt, s sight, first bool) (next []Known, seen map[uint32]sightedAt, changed bool) {
	seen = map[uint32]sightedAt{}
	next = slices.Clone(known)
	for _, d := range s.list {
		if !d.dying {
			seen[d.OID] = sightedAt{s.before, s.at}
		}
		i := slices.IndexFunc(next, func(k Known) bool { return k.OID == d.OID && !k.Dropped() })
		if i < 0 {
			n := Known{Name: d.Name, OID: d.OID, Seen: s.at, At: s.before, Timeline: s.timeline, Since: s.at}
			if !d.dying {
				n.Limit, n.LimitSeen = d.limit, true
			}
			if first {
				n.Since = time.Time{}
			}
			next, changed = append(next, n), true
			continue
		}
		k := &next[i]
		if k.Name != d.Name {
			k.Name, changed = d.Name, true
		}
		if last, ok := before[d.OID]; ok && !d.dying {
			k.Seen, k.At, k.Timeline = last.when, last.at, s.timeline
		}
		if !d.dying && (!k.LimitSeen || k.Limit != d.limit) {
			k.Limit, k.LimitSeen, changed = d.limit, true, true
		}
	}
	for i := range next {
		k := &next[i]
		there := slices.ContainsFunc(s.list, func(d sighted) bool { return d.OID == k.OID })
		if !k.Dropped() && !there {
			k.Gone, k.GoneAt, changed = s.at, s.after, true
		}
	}
	return next, seen, changed
}

// forget removes from the list what cannot be restored any more.
func (k *Keeper) forget(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var w Window
	for _, s := range k.stores {
		if s.contents == nil {
			return // it may hold more
		}
		w = w.with(Restorable(now, s.known(), k.policy, s.archived()))
	}
	k.databases.known = slices.DeleteFunc(k.databases.known, func(d Known) bool {
		return d.Dropped() && !w.From.IsZero() && d.Gone.Before(w.From)
	})
}

// RestorableDatabase is a database with the time to which it can be restored.
type RestorableDatabase struct {
	Known
	Window Window
}

// Databases lists those that there are, and those that were dropped and can still be restored, by name; of several of one name the
// newest first.
func (k *Keeper) Databases() []RestorableDatabase {
	s := k.State()
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []RestorableDatabase{}
	for _, d := range k.databases.known {
		w := s.Window
		if !w.From.IsZero() {
			if d.Since.After(w.From) {
				w.From = d.Since
			}
			if d.Dropped() && d.Seen.Before(w.Until) {
				w.Until = d.Seen
			}
			if w.Until.Before(w.From) {
				w = Window{}
			}
		}
		list = append(list, RestorableDatabase{d, w})
	}
	slices.SortStableFunc(list, func(a, b RestorableDatabase) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return b.Seen.Compare(a.Seen)
	})
	return list
}
