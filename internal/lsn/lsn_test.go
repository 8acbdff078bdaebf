package lsn

import (
	"encoding/json"
	"testing"
	"testing/quick"
)

func TestRoundTrip(t *testing.T) {
	same := func(v uint64) bool {
		got, err := Parse(LSN(v).String())
		return err == nil && got == LSN(v)
	}
	if err := quick.Check(same, nil); err != nil {
		t.Fatal(err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "/", "1", "1/", "/1", "G/1", "1/100000000", "1/2/3", "-1/2", " 1/2"} {
		if v, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, v)
		}
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(LSN(0x16_B374D848))
	if err != nil || string(b) != `"16/B374D848"` {
		t.Fatalf("got %s, %v", b, err)
	}
}

func TestBehind(t *testing.T) {
	if got := LSN(100).Behind(150); got != 50 {
		t.Errorf("Behind = %d, want 50", got)
	}
	if got := LSN(150).Behind(100); got != 0 {
		t.Errorf("Behind = %d, want 0", got)
	}
}

func TestScan(t *testing.T) {
	l := LSN(7)
	if err := l.Scan(nil); err != nil || l != 0 {
		t.Errorf("NULL: %v, %v", l, err)
	}
	if err := l.Scan("0/10"); err != nil || l != 16 {
		t.Errorf("text: %v, %v", l, err)
	}
	if err := l.Scan(12); err == nil {
		t.Error("a number was taken")
	}
}
