package assess

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func found(list []Finding) []string {
	var all []string
	for _, f := range list {
		all = append(all, string(f.Severity)+" "+f.Code)
	}
	slices.Sort(all)
	return all
}

// TestVersions asks for each defect at its borders.
func TestVersions(t *testing.T) {
	for _, c := range []struct {
		number    int
		secondary bool
		want      string
	}{
		{90600, false, "blocks version_unsupported"}, {100023, false, ""}, {130023, true, "blocks version_unsupported"}, {190000, false, "warns version_untested"},
		{130020, false, ""}, {130021, false, "warns decoding_defect"}, {130022, false, ""},
		{140017, false, ""}, {140018, false, "warns decoding_defect"}, {140019, false, ""}, {140018, true, ""},
		{150012, false, ""}, {150013, false, "warns decoding_defect"}, {150014, false, ""},
		{160008, false, ""}, {160009, false, "warns decoding_defect"}, {160010, false, ""},
		{170004, false, ""}, {170005, false, "warns decoding_defect"}, {170006, false, ""}, {180000, false, ""},
		{140003, false, "warns index_defect"}, {140003, true, "warns index_defect"}, {140004, true, ""},
	} {
		list := judgeVersion(c.number, c.secondary)
		if got := strings.Join(found(list), ","); got != c.want {
			t.Errorf("%d: %q, want %q", c.number, got, c.want)
		}
		if c.number == 170005 && (list[0].Object != "PostgreSQL 17.5" || !strings.Contains(list[0].Remedy, "17.6")) {
			t.Errorf("%+v", list[0])
		}
	}
}

func TestPath(t *testing.T) {
	const mega = 1 << 20
	quiet := Facts{LogRate: 1000, FreeLog: 1 << 40, KeepLog: Unknown, Database: 100 * mega}
	usual := []string{"informs network_measured", "informs seeding_estimate"}
	for what, c := range map[string]struct {
		path  Path
		facts Facts
		extra []string
	}{
		"plain":          {Path{Peer: "b", Rate: 100 * mega}, quiet, nil},
		"space unknown":  {Path{Peer: "b", Rate: 100 * mega}, Facts{LogRate: 50 * mega, FreeLog: Unknown, KeepLog: Unknown, Database: mega}, nil},
		"slow":           {Path{Peer: "b", Rate: mega}, Facts{LogRate: 2 * mega, LogSteady: 2 * mega, FreeLog: 1 << 50, KeepLog: Unknown, Database: mega}, []string{"warns network_slow"}},
		"a busy moment":  {Path{Peer: "b", Rate: mega}, Facts{LogRate: 2 * mega, LogSteady: mega / 2, FreeLog: 1 << 50, KeepLog: Unknown, Database: mega}, nil},
		"clock":          {Path{Peer: "b", Rate: 100 * mega, Clock: -3 * time.Second}, quiet, []string{"informs clock_differs"}},
		"clock far":      {Path{Peer: "b", Rate: 100 * mega, Clock: time.Hour}, quiet, []string{"warns clock_differs"}},
		"disk full":      {Path{Peer: "b", Rate: mega}, Facts{LogRate: mega, FreeLog: 50 * mega, KeepLog: Unknown, Database: 100 * mega}, []string{"blocks wal_disk_short"}},
		"disk tight":     {Path{Peer: "b", Rate: mega}, Facts{LogRate: mega, FreeLog: 1000 * mega, KeepLog: Unknown, Database: 100 * mega}, []string{"informs wal_disk_tight"}},
		"slot too small": {Path{Peer: "b", Rate: mega}, Facts{LogRate: mega, FreeLog: 1 << 50, KeepLog: 64 * mega, Database: 100 * mega}, []string{"warns slot_wal_short"}},
	} {
		want := slices.Concat(usual, c.extra)
		slices.Sort(want)
		if got := found(JudgePath(c.path, c.facts)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	for _, f := range JudgePath(Path{Peer: "b", Rate: mega, RoundTrip: 3 * time.Millisecond}, quiet) {
		if f.Code == "seeding_estimate" && !strings.Contains(f.Why, "1m40s") || f.Code == "network_measured" && !strings.Contains(f.Why, "3ms") {
			t.Errorf("%+v", f)
		}
	}
}

func TestSpace(t *testing.T) {
	const giga = 1 << 30
	for _, c := range []struct {
		bytes, free int64
		want        string
	}{{giga, Unknown, "informs space_unknown"}, {giga, giga - 1, "blocks space_short"}, {giga, giga, "warns space_tight"}, {giga, 2 * giga, ""}, {0, 1000 << 20, ""}} {
		if got := strings.Join(found(spaceFor(c.bytes, c.free)), ","); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"1.9", "1.10", true}, {"1.10", "1.9", false}, {"3.4.2", "3.4", false}, {"2", "2.0.1", true}, {"1.1-rc2", "1.1-rc3", true}} {
		if older(c.a, c.b) != c.want {
			t.Errorf("%+v", c)
		}
	}
}

// TestSlowNetworksAreMeasuredAgain: one second of a busy machine is no evidence.
func TestSlowNetworksAreMeasuredAgain(t *testing.T) {
	for name, c := range map[string]struct {
		rates, written []float64 // of one measurement after the other
		average        bool
		rate, steady   float64
		measured       int
	}{
		"fast at once":           {[]float64{9}, []float64{5}, false, 9, 5, 1},
		"fast the second time":   {[]float64{1, 9}, []float64{5, 5}, false, 9, 5, 2},
		"the primary was busy":   {[]float64{3, 2}, []float64{5, 1}, false, 3, 1, 2},
		"slow each time":         {[]float64{1, 3, 2, 1}, []float64{5, 9, 8, 7}, false, 3, 5, 4},
		"slow for what is usual": {[]float64{1, 3, 2, 1}, []float64{5}, true, 3, 5, 4},
	} {
		facts := Facts{LogSteady: c.written[0], LogAverage: c.average}
		networks, logs := 1, 1
		rate, err := Remeasure(c.rates[0], &facts, func() (float64, error) { networks++; return c.rates[networks-1], nil },
			func() (float64, error) { logs++; return c.written[logs-1], nil })
		if err != nil || rate != c.rate || facts.LogSteady != c.steady || networks != c.measured {
			t.Errorf("%s: %v of %v after %d measurements, %v", name, rate, facts.LogSteady, networks, err)
		}
	}
	failed := errors.New("cut")
	if _, err := Remeasure(1, &Facts{LogSteady: 2}, func() (float64, error) { return 0, failed }, nil); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
}

func TestJudgeStorageAndEncryption(t *testing.T) {
	const gB = 1 << 30
	for _, c := range []struct {
		bytes   int64
		storage *Storage
		want    string
	}{
		{5 * gB, nil, ""},
		{5 * gB, &Storage{Limit: 100 * gB, Free: 10 * gB}, ""},
		{5 * gB, &Storage{Limit: 100 * gB, Free: 6 * gB}, "warns storage_tight"},
		{5 * gB, &Storage{Limit: 100 * gB, Free: 5*gB - 1}, "blocks storage_exceeded"},
	} {
		if got := strings.Join(found(storageFor(c.bytes, c.storage)), ","); got != c.want {
			t.Errorf("%d into %+v: %s, want %s", c.bytes, c.storage, got, c.want)
		}
		if err := c.storage.Room(c.bytes); (err != nil) != (strings.HasSuffix(c.want, "storage_exceeded")) || err != nil && !strings.Contains(err.Error(), "has 5 GB") {
			t.Errorf("%d into %+v: %v", c.bytes, c.storage, err)
		}
	}
	for _, c := range []struct{ primary, secondary, want string }{
		{"", "", ""}, {"", "dm-crypt", ""}, {"unknown", "unknown", ""}, {"unknown", "dm-crypt", ""}, {"dm-crypt", "dm-crypt", ""},
		{"dm-crypt", "", "informs encryption_unknown"}, {"dm-crypt", "unknown", "warns encryption_differs"}, {"file system", "dm-crypt", "informs encryption_differs"},
	} {
		if got := strings.Join(found(judgeEncryption(c.primary, c.secondary)), ","); got != c.want {
			t.Errorf("%s and %s: %s, want %s", c.primary, c.secondary, got, c.want)
		}
	}
}
