package history

import (
	"math"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
)

func at(n int) time.Time {
	return time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC).Add(time.Duration(n) * Every)
}

func sample(n int) api.HistorySample {
	lag, bytes := float64(n)/3, int64(n)*1000
	s := api.HistorySample{At: at(n), Phase: api.Replicating, LagSeconds: &lag, LagBytes: &bytes}
	if n%2 == 0 {
		s.LagBytes, s.TransactionsPerSecond = nil, &lag // unknown stays unknown
	}
	return s
}

func open(t *testing.T, dir string) *Ring {
	t.Helper()
	r, err := Open(dir, "7d9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// What goes round the ring is there again when it is opened anew, oldest first.
func TestRingGoesRoundAndIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	const more = 10
	for n := range Kept + more {
		if err := r.Append(sample(n)); err != nil {
			t.Fatal(err)
		}
	}
	var want []api.HistorySample
	for n := more; n < Kept+more; n++ {
		want = append(want, sample(n))
	}
	for _, r := range []*Ring{r, open(t, dir)} {
		if got := r.Since(time.Time{}); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d samples, from %v", len(got), got[0])
		}
		if got := r.Since(at(Kept + more - 3)); !reflect.DeepEqual(got, want[Kept-2:]) {
			t.Fatalf("since: %v", got)
		}
	}
	again := open(t, dir)
	if err := again.Append(sample(Kept + more)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).Since(time.Time{}); len(got) != Kept || !got[0].At.Equal(at(more+1)) {
		t.Fatalf("after another: %d from %v", len(got), got[0].At)
	}
	info, err := os.Stat(path(dir, "7d9"))
	if err != nil || info.Size() != Kept*recordBytes || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
}

// A spoiled record is a gap, and the rest is read.
func TestDamageIsAGap(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	for n := range 5 {
		if err := r.Append(sample(n)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(path(dir, "7d9"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff, 0xff}, 2*recordBytes+20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(4*recordBytes + 7); err != nil { // the last one is torn
		t.Fatal(err)
	}
	if got := open(t, dir).Since(time.Time{}); !reflect.DeepEqual(got, []api.HistorySample{sample(0), sample(1), sample(3)}) {
		t.Fatalf("%v", got)
	}
}

// A clock that is set back begins anew, rather than drawing lines to and fro.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	for _, n := range []int{5, 6, 7, 2, 3} {
		if err := r.Append(sample(n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*Ring{r, open(t, dir)} {
		if got := r.Since(time.Time{}); !reflect.DeepEqual(got, []api.HistorySample{sample(2), sample(3)}) {
			t.Fatalf("%v", got)
		}
	}
	if err := Remove(dir, "7d9"); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir, "7d9"); err != nil {
		t.Fatalf("twice: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	whole := encode(sample(1))
	f.Add(whole[:])
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) < recordBytes {
			return
		}
		s, ok := decode([recordBytes]byte(text))
		if !ok {
			return
		}
		for _, v := range []*float64{s.LagSeconds, s.TransactionsPerSecond, s.ChangesPerSecond, s.BytesPerSecond, s.SeedBytesPerSecond} {
			if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
				t.Errorf("%v is no number to draw", *v)
			}
		}
	})
}
