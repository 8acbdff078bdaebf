package backup

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// ago is a set that ended some hours before noon.
func ago(kind Kind, hours int) Set {
	return Set{Label: string(kind), Kind: kind, Stop: noon.Add(time.Duration(-hours) * time.Hour)}
}

func TestDue(t *testing.T) {
	for _, c := range []struct {
		name string
		sets []Set
		kind Kind
		in   time.Duration // from noon
		late bool
	}{
		{"nothing", nil, Full, 0, true},
		{"a full one of now", []Set{ago(Full, 0)}, Differential, 24 * time.Hour, false},
		{"a full one of a day ago", []Set{ago(Full, 25)}, Differential, -time.Hour, false},
		{"so late that it is overdue", []Set{ago(Full, 31)}, Differential, -7 * time.Hour, true},
		{"differential of today", []Set{ago(Full, 100), ago(Differential, 3)}, Differential, 21 * time.Hour, false},
		{"a week is over before the day", []Set{ago(Full, 7*24-5), ago(Differential, 3)}, Full, 5 * time.Hour, false},
		{"incremental counts for the day", []Set{ago(Full, 30), ago(Incremental, 1)}, Differential, 23 * time.Hour, false},
	} {
		contents := Contents{Sets: c.sets}
		kind, at := Due(noon, contents)
		if kind != c.kind || at.Sub(noon) != c.in {
			t.Errorf("%s: %s in %s, want %s in %s", c.name, kind, at.Sub(noon), c.kind, c.in)
		}
		if late := Overdue(noon, noon.Add(-2*time.Hour), contents); late != c.late {
			t.Errorf("%s: overdue %t", c.name, late)
		}
	}
	if Overdue(noon, noon.Add(-time.Minute), Contents{}) {
		t.Error("an instance is a minute old and its first backup is called overdue")
	}
}

func TestRestorableIsWithinTheRetentionAndBehindABackup(t *testing.T) {
	week := Policy{RetentionDays: 7}
	for _, c := range []struct {
		name        string
		sets        []Set
		archived    time.Time
		from, until time.Time
	}{
		{"nothing", nil, noon, time.Time{}, time.Time{}},
		{"one", []Set{ago(Full, 2)}, noon, noon.Add(-2*time.Hour + time.Second), noon},
		{"log unknown", []Set{ago(Full, 3), ago(Differential, 1)}, time.Time{}, noon.Add(-3*time.Hour + time.Second), noon.Add(-time.Hour)},
		{"one, and the log behind it unknown", []Set{ago(Full, 3)}, time.Time{}, time.Time{}, time.Time{}},
		{"older than the retention", []Set{ago(Full, 9*24), ago(Full, 2*24)}, noon, noon.Add(-7 * 24 * time.Hour), noon},
		{"everything too old", []Set{ago(Full, 9*24)}, time.Time{}, time.Time{}, time.Time{}},
	} {
		w := Restorable(noon, Contents{Sets: c.sets}, week, c.archived)
		if !w.From.Equal(c.from) || !w.Until.Equal(c.until) {
			t.Errorf("%s: %v to %v", c.name, w.From, w.Until)
		}
	}

}

func TestSegments(t *testing.T) {
	at, err := lsn.Parse("1A/FF000028")
	if err != nil {
		t.Fatal(err)
	}
	if name := SegmentOf(3, at); name != "000000030000001A000000FF" {
		t.Error(name)
	}
	list := []string{"000000010000000000000005", "000000010000000000000006", "0000000100000000000000FF", "000000010000000100000000", "00000002.history", "000000020000000100000000", "000000020000000100000003"}
	want := []Gap{{"000000010000000000000007", "0000000100000000000000FE"}, {"000000020000000100000001", "000000020000000100000002"}}
	if gaps := Gaps(list); !slices.Equal(gaps, want) {
		t.Errorf("%v", gaps)
	}
	if gaps := Gaps(nil); gaps != nil {
		t.Errorf("%v", gaps)
	}
}

func TestPolicy(t *testing.T) {
	for _, bad := range []Policy{{0, "/r"}, {36, "/r"}, {7, "r"}, {7, ""}, {7, "/"}, {7, "/r\nx=y"}, {7, "/r/"}, {7, "/r/../x"}, {7, "/r "}} {
		if err := bad.Validate(); problem.CodeOf(err) != "backup_policy_invalid" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	if p, err := LoadPolicy(file, "/d"); err != nil || p != (Policy{7, "/d"}) {
		t.Errorf("%+v, %v", p, err)
	}
}

// look5 is a look at the server some seconds after noon.
func lookAt(seconds int, at lsn.LSN, names ...string) sight {
	s := sight{at: noon.Add(time.Duration(seconds) * time.Second), before: at, after: at + 50, timeline: 1}
	for i, name := range names {
		if name == "" {
			continue
		}
		dying := name[0] == '!'
		if dying {
			name = name[1:]
		}
		s.list = append(s.list, sighted{Database{name, uint32(i + 1)}, dying, -1})
	}
	return s
}

func TestListOfDatabases(t *testing.T) {
	var known []Known
	seen := map[uint32]sightedAt{}
	step := func(first bool, s sight) (changed bool) {
		known, seen, changed = merge(known, seen, s, first)
		return changed
	}
	step(true, lookAt(0, 100, "a", "b"))
	if step(false, lookAt(5, 200, "a", "b")) {
		t.Error("nothing came or went")
	}
	if !step(false, lookAt(10, 300, "a", "b", "c")) {
		t.Error("c came")
	}
	step(false, lookAt(15, 400, "a", "!b", "renamed"))
	if !step(false, lookAt(20, 500, "a", "", "renamed")) {
		t.Error("b went")
	}
	if step(false, lookAt(25, 600, "a", "", "renamed")) {
		t.Error("nothing came or went")
	}
	want := []Known{
		{Name: "a", OID: 1, Seen: noon.Add(20 * time.Second), At: 500, Timeline: 1, Limit: -1, LimitSeen: true},
		// Seen at 300 and at 400; at 400 its DROP was under way, so it surely was there at 200 alone.
		{Name: "b", OID: 2, Seen: noon.Add(5 * time.Second), At: 200, Timeline: 1, Gone: noon.Add(20 * time.Second), GoneAt: 550, Limit: -1, LimitSeen: true},
		{Name: "renamed", OID: 3, Since: noon.Add(10 * time.Second), Seen: noon.Add(20 * time.Second), At: 500, Timeline: 1, Limit: -1, LimitSeen: true},
	}
	if !slices.Equal(known, want) {
		t.Errorf("\n%+v\nwant\n%+v", known, want)
	}
	// Another of the name is another database.
	step(false, sight{at: noon.Add(30 * time.Second), before: 700, after: 750, timeline: 1, list: []sighted{{Database{"b", 9}, false, -1}}})
	if last := known[len(known)-1]; last.OID != 9 || last.Dropped() || last.Since.IsZero() {
		t.Errorf("%+v", last)
	}
}

func TestVerifyDue(t *testing.T) {
	for _, c := range []struct {
		name     string
		sets     []Set
		verified time.Time
		in       time.Duration // from noon
	}{
		{"nothing to read", nil, time.Time{}, 7 * 24 * time.Hour},
		{"never", []Set{ago(Full, 5), ago(Differential, 1)}, time.Time{}, 19 * time.Hour},
		{"never, for long", []Set{ago(Full, 50)}, time.Time{}, -26 * time.Hour},
		{"a day ago", []Set{ago(Full, 50)}, noon.Add(-24 * time.Hour), 6 * 24 * time.Hour},
	} {
		if at := VerifyDue(noon, c.verified, Contents{Sets: c.sets}); at.Sub(noon) != c.in {
			t.Errorf("%s: in %s, want %s", c.name, at.Sub(noon), c.in)
		}
	}
}

// What a verification found stays when the agent starts anew, until another finds nothing or the repository is another one.
func TestVerificationIsRemembered(t *testing.T) {
	dir := t.TempDir()
	start := func() *Keeper {
		k := &Keeper{Dir: dir, Repository: "/repository", Log: slog.New(slog.DiscardHandler),
			Put: func(file string, text []byte) error { return os.WriteFile(file, text, 0o600) }}
		if err := k.Open(); err != nil {
			t.Fatal(err)
		}
		return k
	}
	code := func(k *Keeper) string {
		if p := k.problems["verify"]; p != nil {
			return p.Code + " " + p.Subject
		}
		return ""
	}
	k := start()
	damaged := verification{At: noon, Report: Report{Sets: 1, Findings: []Finding{{Set: "full", Text: "a checksum differs"}}}}
	if err := k.found(damaged); err != nil || code(k) != "backup_damaged full" {
		t.Fatalf("found: %s, %v", code(k), err)
	}
	if k = start(); code(k) != "backup_damaged full" || !k.verified.At.Equal(noon) {
		t.Errorf("after a start: %s, %v", code(k), k.verified)
	}
	if err := k.SetPolicy(Policy{RetentionDays: 7, Repository: "/another"}); err != nil || code(k) != "" {
		t.Errorf("of another repository: %s, %v", code(k), err)
	}
	if k = start(); code(k) != "" || !k.verified.At.IsZero() {
		t.Errorf("of another repository, after a start: %s, %v", code(k), k.verified)
	}
	if err := os.WriteFile(k.verificationFile(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k = start(); code(k) != "" || !k.verified.At.IsZero() {
		t.Errorf("of a broken file: %s, %v", code(k), k.verified)
	}
}
