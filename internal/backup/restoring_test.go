package backup

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestFind(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	window := Window{From: at(-100), Until: at(0)}
	database := func(oid uint32, name string, since, gone int) RestorableDatabase {
		d := Known{Name: name, OID: oid}
		if since > -1000 {
			d.Since = at(since)
		}
		if gone < 1000 {
			d.Seen, d.Gone = at(gone).Add(-5*time.Second), at(gone)
		}
		return RestorableDatabase{Known: d}
	}
	all := []RestorableDatabase{
		database(1, "old", -1000, 1000),
		database(4, "twice", -20, 1000), database(3, "twice", -60, -30),
		database(6, "gone", -40, -10), database(5, "gone", -90, -50),
		database(7, "new", -1, 1000),
	}
	for _, c := range []struct {
		name    string
		minutes int
		dropped bool
		want    uint32
		code    string
	}{
		{"old", -50, false, 1, ""},
		{"old", -100, false, 1, ""},
		{"old", -101, false, 0, "restore_too_early"},
		{"old", 1, false, 0, "restore_in_future"},
		{"old", 0, true, 0, "restore_not_dropped"},
		{"none", 0, false, 0, "restore_database_unknown"},
		{"twice", -25, false, 0, "restore_absent"},
		{"twice", -20, false, 4, ""},
		{"twice", -21, false, 4, ""}, // it may have been there before it was seen
		{"twice", -31, false, 3, ""},
		{"twice", 0, true, 3, ""},
		{"gone", -20, false, 6, ""},
		{"gone", -10, false, 0, "restore_gone"},
		{"gone", 0, true, 6, ""},
		{"gone", -55, false, 5, ""},
		{"new", -2, false, 7, ""},
		{"new", -3, false, 0, "restore_absent"},
	} {
		w := Wanted{Name: c.name, At: at(c.minutes)}
		if c.dropped {
			w = Wanted{Name: c.name, Dropped: true}
		}
		d, err := find(all, w, noon, window)
		if d.OID != c.want || problem.CodeOf(err) != c.code {
			t.Errorf("%+v: %d, %v", c, d.OID, err)
		}
	}
	if _, err := find(all, Wanted{Name: "old", At: at(-1)}, noon,
		Window{}); problem.CodeOf(err) != "restore_no_backup" {
		t.Error(err)
	}
}

func TestNewestBefore(t *testing.T) {
	c := Contents{Sets: []Set{{Label: "1", Stop: noon, To: 100}, {Label: "2", Stop: noon.Add(time.Hour), To: 200}}}
	for _, s := range []struct {
		moment time.Time
		want   string
	}{
		{noon, ""}, // its time is cut off to the second
		{noon.Add(time.Second), "1"},
		{noon.Add(time.Hour), "1"},
		{noon.Add(time.Hour + time.Second), "2"},
	} {
		if set, ok := c.Before(s.moment); set.Label != s.want || ok != (s.want != "") {
			t.Errorf("%s: %q", s.moment, set.Label)
		}
	}
	for at, want := range map[int]string{99: "", 100: "1", 199: "1", 200: "2"} {
		if set, _ := c.BeforePosition(lsn.LSN(at)); set.Label != want {
			t.Errorf("%d: %q", at, set.Label)
		}
	}
}
