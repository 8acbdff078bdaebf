package audit

import (
	"testing"
	"time"
)

var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func TestNextGoesOnThenTakesTheOldest(t *testing.T) {
	began := now
	items := []Item{
		{Kind: Table, Name: "compared", Compared: now.Add(time.Second)},
		{Kind: Table, Name: "old", Compared: now.Add(-time.Hour)},
		{Kind: Table, Name: "older", Compared: now.Add(-2 * time.Hour)},
		{Kind: Table, Name: "never"},
		{Kind: Table, Name: "begun", Compared: now.Add(-time.Minute), Upto: []string{"7"}},
		{Kind: Table, Name: "left out", Skipped: "why"},
	}
	var order []string
	for {
		i, found := Next(items, began)
		if !found {
			break
		}
		order = append(order, items[i].Name)
		items[i].Compared, items[i].Upto = now.Add(time.Minute), nil
	}
	want := []string{"begun", "never", "older", "old"}
	if len(order) != len(want) {
		t.Fatalf("the order is %v", order)
	}
	for i := range want {
		if order[i] != want[i] {
			t.Errorf("the order is %v, not %v", order, want)
		}
	}
}

func TestLengthCountsWhatIsRead(t *testing.T) {
	items := []Item{{Bytes: 80 << 20}, {Bytes: 80 << 20}, {Bytes: 1 << 40, Skipped: "why"}}
	if got := Length(items, 8<<20); got != 20*time.Second {
		t.Errorf("160 MB at 8 MB/s take %s", got)
	}
	if got := Length(items, 0); got != 0 {
		t.Errorf("without a rate it takes %s", got)
	}
}

func TestWhatIsLargeHasToBeDivided(t *testing.T) {
	for _, c := range []struct {
		item Item
		want bool
	}{{Item{Bytes: 100 << 20}, true}, {Item{Bytes: 1 << 30}, false}, {Item{Bytes: 1 << 40, Divided: true}, true}} {
		if got := c.item.Fits(8 << 20); got != c.want {
			t.Errorf("%+v fits: %t", c.item, got)
		}
	}
}

func TestLate(t *testing.T) {
	items := []Item{
		{Name: "fresh", Compared: now.Add(-time.Hour)},
		{Name: "stale", Compared: now.Add(-Overdue - time.Hour)},
		{Name: "staler", Compared: now.Add(-Overdue - 2*time.Hour)},
		{Name: "never"},
		{Name: "left out", Skipped: "unlogged"},
	}
	if late := Late(items, now.Add(-time.Hour), now); len(late) != 2 || late[0].Name != "staler" || late[1].Name != "stale" {
		t.Errorf("late are %+v", late)
	}
	if late := Late(items, now.Add(-2*Overdue), now); len(late) != 3 || late[0].Name != "never" {
		t.Errorf("of an old link late are %+v", late)
	}
}

func TestRowsOfAPiece(t *testing.T) {
	if got := Rows(1_000_000, 100<<20); got != 10_000 {
		t.Errorf("a piece of rows of 100 bytes has %d", got)
	}
	if got := Rows(10, 8<<10); got < 10 {
		t.Errorf("a small table has more than a piece of %d", got)
	}
	if got := Rows(2, 1<<40); got != 1 {
		t.Errorf("a piece of huge rows has %d", got)
	}
}

func TestPaceKeepsTheRate(t *testing.T) {
	p := Pace{Rate: 8 << 20}
	at, read := now, int64(0)
	for range 100 {
		worked := 2 * time.Millisecond
		at = at.Add(worked)
		at = at.Add(p.Took(at, 1<<20, worked))
		read += 1 << 20
	}
	if rate := float64(read) / at.Sub(now).Seconds(); rate > 8<<20*1.01 || rate < 8<<20*0.99 {
		t.Errorf("it read %.0f bytes a second", rate)
	}
}

// A server that is slower than the rate is not kept busy without a pause.
func TestPaceLeavesASlowServerInPeace(t *testing.T) {
	for rate, least := range map[int64]time.Duration{DefaultRate: 39 * time.Second, 4 * DefaultRate: 9 * time.Second, 1 << 40: time.Second} {
		p := Pace{Rate: rate}
		if wait := p.Took(now, 1<<20, time.Second); wait < least || wait > least+time.Millisecond {
			t.Errorf("at %d bytes a second, after a second of work it waits %s", rate, wait)
		}
	}
	p := Pace{Rate: DefaultRate}
	for range 4 {
		p.Took(now, 1<<20, 100*time.Millisecond)
	}
	if got := p.Speed(); got < 1<<18-1 || got > 1<<18+1 {
		t.Errorf("a megabyte each 4 s are %d bytes a second", got)
	}
	// Nothing is made up for after a rest.
	p = Pace{Rate: 1 << 20}
	if p.Took(now, 1<<20, 0); p.Speed() != 0 {
		t.Error("it knows its speed after one piece")
	}
	if wait := p.Took(now.Add(time.Hour), 1<<20, 0); wait != time.Second {
		t.Errorf("after an hour's rest it waits %s", wait)
	}
}
