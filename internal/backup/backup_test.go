package backup

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
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
	in := func(days int, places ...string) (p Policy) {
		p.RetentionDays = days
		for i, place := range places {
			p.Repositories = append(p.Repositories, Repository{i + 1, place})
		}
		return p
	}
	for _, bad := range []Policy{in(0, "/r"), in(36, "/r"), in(7, "r"), in(7, ""), in(7, "/"), in(7, "/r\nx=y"), in(7, "/r/"), in(7, "/r/../x"), in(7, "/r "), in(7),
		in(7, "/1", "/2", "/3", "/4", "/5"), in(7, "/r", "/r"), in(7, "s3://b?endpoint=h&region=r", "s3://b/?region=x&endpoint=h"), in(7, "ftp://b"),
		in(7, "s3://b"), in(7, "s3://b?endpoint=h&region=r&key=k"), in(7, "s3://k:s@b?endpoint=h&region=r"), in(7, "azure://c"), in(7, "gcs://b/a%0Ab"),
		in(7, "s3://b?endpoint=h&region=r&uri-style=x"), in(7, "s3://b?endpoint=h&endpoint=i&region=r")} {
		if err := bad.Validate(); problem.CodeOf(err) != "backup_policy_invalid" || strings.Contains(err.Error(), "k:s") || strings.Contains(err.Error(), "key=k") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := in(7, "/r", "s3://b/x?endpoint=h&region=r", "azure://b/x?account=a", "gcs://b/x").Validate(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	if p, err := LoadPolicy(file, "/d"); err != nil || !reflect.DeepEqual(p, in(7, "/d")) {
		t.Errorf("%+v, %v", p, err)
	}
	if err := os.WriteFile(file, []byte(`{"retentionDays": 9, "repository": "/old"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := LoadPolicy(file, "/d")
	if err != nil || !reflect.DeepEqual(p, in(9, "/old")) {
		t.Errorf("of before: %+v, %v", p, err)
	}
	two, number := p.With("gcs://b")
	same, again := two.With("/old")
	left, err := two.Without("/old")
	if number != 2 || again != 1 || len(same.Repositories) != 2 || err != nil || left.Place(2) != "gcs://b" || len(left.Repositories) != 1 || len(p.Repositories) != 1 {
		t.Errorf("%d, %d, %+v, %+v, %v", number, again, same, left, err)
	}
	if third, n := left.With("/new"); n != 1 || third.Repositories[0].Place != "/new" {
		t.Errorf("a number that is free is used again: %+v", third)
	}
	if _, err := left.Without("gcs://b"); problem.CodeOf(err) != "backup_policy_invalid" {
		t.Error(err)
	}
	if _, err := left.Without("/old"); problem.CodeOf(err) != "backup_repository_unknown" {
		t.Error(err)
	}
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		kind PlaceKind
		c    Credentials
		ok   bool
	}{
		{Directory, nil, true}, {Directory, Credentials{"key": "hunter2"}, false},
		{S3, Credentials{"key": "k", "secret": "s"}, true}, {S3, Credentials{"key": "k", "secret": "s", "token": "t"}, true},
		{S3, nil, false}, {S3, Credentials{"key": "hunter2"}, false}, {S3, Credentials{"key": "k", "secret": "hunter2\nx=y"}, false}, {S3, Credentials{"key": "k", "secret": ""}, false},
		{Azure, Credentials{"key": "k"}, true}, {Azure, Credentials{"sas": "k"}, true}, {Azure, Credentials{"sas": "k", "key": "hunter2"}, false},
		{GCS, Credentials{"token": "k"}, true}, {GCS, Credentials{"service": "{\n}"}, true}, {GCS, Credentials{"secret": "hunter2"}, false},
	} {
		err := c.c.Validate(c.kind)
		if (err == nil) != c.ok || err != nil && (problem.CodeOf(err) != "backup_credentials_invalid" || strings.Contains(problem.As(err).Error()+problem.As(err).Hint, "hunter2")) {
			t.Errorf("%s %v: %v", c.kind, c.c, err)
		}
	}
}

// What is asked for is one task, however many repositories there are.
func TestTaskOfSeveralRepositories(t *testing.T) {
	failed := problem.New(problem.Resource, "backup_repository_full", "full")
	parts := []Task{
		{Number: 7, Repository: 1, Kind: Verifying, Began: noon, Ended: noon.Add(time.Minute), Report: &Report{Sets: 1, Segments: 2}},
		{Number: 8, Repository: 2, Kind: Making, Began: noon},
		{Number: 7, Repository: 2, Kind: Verifying, Began: noon.Add(-time.Minute), Ended: noon, Report: &Report{Sets: 3, Segments: 4, Findings: []Finding{{Text: "x"}}}},
		{Number: 7, Repository: 3, Kind: Verifying, Began: noon, Ended: noon.Add(time.Hour), Problem: failed},
	}
	all := merged(parts, true)
	if len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	v := all[0]
	if len(v.Parts) != 3 || !v.Began.Equal(noon.Add(-time.Minute)) || !v.Ended.Equal(noon.Add(time.Hour)) || v.Problem != failed || v.Failed() != "in 1 of 3 repositories" ||
		v.Report.Sets != 4 || v.Report.Segments != 6 || len(v.Report.Findings) != 1 {
		t.Errorf("%+v", v)
	}
	parts[3].Ended = time.Time{}
	if v := merged(parts, true)[0]; !v.Ended.IsZero() {
		t.Errorf("one part is under way: %+v", v)
	}
	if one := merged(parts[1:2], false)[0]; one.Parts != nil || one.Failed() != "" {
		t.Errorf("%+v", one)
	}
}

func TestWindowOfSeveralRepositories(t *testing.T) {
	w := func(from, until int) Window {
		return Window{noon.Add(time.Duration(from) * time.Hour), noon.Add(time.Duration(until) * time.Hour)}
	}
	for _, c := range [][3]Window{{w(1, 5), w(3, 7), w(1, 7)}, {w(3, 7), w(1, 5), w(1, 7)}, {w(1, 2), w(3, 4), w(3, 4)}, {w(3, 4), w(1, 2), w(3, 4)}, {{}, w(1, 2), w(1, 2)}, {w(1, 2), {}, w(1, 2)}} {
		if got := c[0].with(c[1]); got != c[2] {
			t.Errorf("%v with %v is %v", c[0], c[1], got)
		}
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

// Of more dropped databases than a list holds those that were dropped last stay, and all that are there.
func TestDroppedDatabasesAreBounded(t *testing.T) {
	var list, want []Known
	for i := range mostDropped + 9 {
		// Two at a time, the last first.
		d := Known{Name: "dropped", OID: uint32(mostDropped + 9 - i), Gone: noon.Add(-time.Duration(i/2) * time.Second)}
		there := Known{Name: "there", OID: uint32(10_000 + i)}
		list = append(list, d, there)
		if i < mostDropped {
			want = append(want, d)
		}
		want = append(want, there)
	}
	if got := bounded(slices.Clone(list)); !slices.Equal(got, want) {
		t.Errorf("%d stay of %d, not %d", len(got), len(list), len(want))
	}
	if got := bounded(slices.Clone(want)); !slices.Equal(got, want) {
		t.Errorf("%d stay of %d", len(got), len(want))
	}
}

func TestProveDue(t *testing.T) {
	sets := []Set{{Kind: Full, Stop: noon.Add(-24 * 24 * time.Hour)}}
	at := func(days int) time.Time { return noon.Add(time.Duration(days) * 24 * time.Hour) }
	for name, c := range map[string]struct {
		tried, done time.Time
		sets        []Set
		due         time.Time
		late        bool
	}{
		"no backup":          {time.Time{}, time.Time{}, nil, at(7), false},
		"never":              {time.Time{}, time.Time{}, sets, at(-23), true},
		"of yesterday":       {at(-1), at(-1), sets, at(6), false},
		"failed of today":    {at(0), at(-4), sets, at(1), false},
		"failed for a while": {at(0), at(-11), sets, at(1), true},
		"due for three days": {at(-10), at(-10), sets, at(-3), false},
		"late":               {at(-11), at(-11), sets, at(-4), true},
	} {
		if due := ProveDue(noon, c.tried, c.done, Contents{Sets: c.sets}); !due.Equal(c.due) {
			t.Errorf("%s: due %s, not %s", name, due, c.due)
		}
		if err := untested(noon, c.done, Contents{Sets: c.sets}); (err != nil) != c.late {
			t.Errorf("%s: %v", name, err)
		}
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
		k := &Keeper{Dir: dir, Repository: "/repository", Log: slog.New(slog.DiscardHandler), Engine: func(int) Engine { return &fake{} },
			Put: func(file string, text []byte) error { return os.WriteFile(file, text, 0o600) }}
		if err := k.Open(); err != nil {
			t.Fatal(err)
		}
		return k
	}
	code := func(k *Keeper) string {
		if p := k.stores[0].problems["verify"]; p != nil {
			return p.Code + " " + p.Subject
		}
		return ""
	}
	k := start()
	damaged := verification{At: noon, Report: Report{Sets: 1, Findings: []Finding{{Set: "full", Text: "a checksum differs"}}}}
	if err := k.stores[0].found(damaged); err != nil || code(k) != "backup_damaged full" {
		t.Fatalf("found: %s, %v", code(k), err)
	}
	if k = start(); code(k) != "backup_damaged full" || !k.stores[0].verified.At.Equal(noon) {
		t.Errorf("after a start: %s, %v", code(k), k.stores[0].verified)
	}
	if err := k.SetPolicy(Policy{7, []Repository{{1, "/another"}}}, nil); err != nil || code(k) != "" {
		t.Errorf("of another repository: %s, %v", code(k), err)
	}
	if k = start(); code(k) != "" || !k.stores[0].verified.At.IsZero() {
		t.Errorf("of another repository, after a start: %s, %v", code(k), k.stores[0].verified)
	}
	if err := os.WriteFile(k.stores[0].verificationFile(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k = start(); code(k) != "" || !k.stores[0].verified.At.IsZero() {
		t.Errorf("of a broken file: %s, %v", code(k), k.stores[0].verified)
	}
}
