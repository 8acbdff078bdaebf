package terminal

import (
	"os"
	"strings"
	"testing"
)

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1023: "1.0 kB", 1024: "1.0 kB", 1536: "1.5 kB", 200 << 20: "200 MB", 1000 << 20: "1.0 GB", 1 << 62: "4096 PB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[float64]string{-1: "0 s", 0: "0 s", 0.0001: "under 1 ms", 0.25: "250 ms", 2.34: "2.3 s", 59.6: "60 s", 150: "2 min 30 s", 7260: "2 h 1 min", 1e6: "11 days"} {
		if got := Duration(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
	if got := Quoted("/a b/it's"); got != `'/a b/it'\''s'` {
		t.Error(got)
	}
	if got := Quoted("/a-b/c.d_e+1"); got != "/a-b/c.d_e+1" {
		t.Error(got)
	}
	if got := Bar(1, 4, 8) + Bar(5, 4, 4) + Bar(0, 0, 2); got != "[##......][####][..]" {
		t.Error(got)
	}
	if got := Cut("öäü-öäü", 4) + Cut("abcd", 4); got != "öäü…abcd" {
		t.Error(got)
	}
}

func TestTableAlignsLettersNotBytes(t *testing.T) {
	var b strings.Builder
	Table(&b, []string{"A", "B", "C"}, [][]string{{"ö", "x", ""}, {"abc", "", "z"}})
	if got, want := b.String(), "A    B  C\nö    x\nabc     z\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBlockIsRedrawnWhereItStood(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/screen")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &Screen{file: f}
	s.Draw([]string{"one", "two", "three"})
	s.Draw([]string{"four"})
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := "\r\x1b[2Kone\n\r\x1b[2Ktwo\n\r\x1b[2Kthree\n" + "\x1b[3A\r\x1b[2Kfour\n\x1b[2K\n\x1b[2K\n\x1b[2A"
	if string(text) != want {
		t.Errorf("%q", text)
	}
	if Of(f) != nil || Of(&strings.Builder{}) != nil {
		t.Error("a file is taken for a terminal")
	}
}

func TestFit(t *testing.T) {
	block := []string{"NAME", "a", "b", "c", "", "end"}
	if got := strings.Join(Fit(block, 6), "|"); got != "NAME|a|b|c||end" {
		t.Error(got)
	}
	if got := strings.Join(Fit(block, 4), "|"); got != "NAME|a|b|… 2 more lines; end" {
		t.Error(got)
	}
	if got := strings.Join(Fit(block, 1), "|"); got != "… 5 more lines; end" {
		t.Error(got)
	}
	if strings.Join(block, "|") != "NAME|a|b|c||end" {
		t.Error("the block was changed")
	}
}

// What a terminal obeys is shown, and what it draws wide or not at all is counted so.
func TestTextOfOthersIsOnlyText(t *testing.T) {
	if got := Clean("a\x1b[2J\nb\u009bc\u202ed\té"); got != `a\x1b[2J\nb\x9bc\u202ed\x09é` {
		t.Errorf("%q", got)
	}
	if got := Clean("plain, ö"); got != "plain, ö" {
		t.Errorf("%q", got)
	}
	if got := Cut("表表表", 5) + Cut("表表", 4) + Cut("e\u0301a", 2) + Cut("ab", 1); got != "表表…表表e\u0301a…" {
		t.Errorf("%q", got)
	}
	var b strings.Builder
	Table(&b, []string{"A", "B"}, [][]string{{"表\x1b", "x"}, {"abcdef", "y"}})
	if got, want := b.String(), "A       B\n表\\x1b  x\nabcdef  y\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
