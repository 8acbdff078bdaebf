package instance

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

func TestReleases(t *testing.T) {
	for text, want := range map[string]Release{"15.20": {15, 20}, "18.0": {18, 0}, "": {}, "15": {}, "x.1": {}} {
		if got := ParseRelease(text); got != want {
			t.Errorf("%q: %+v", text, got)
		}
		if want.Known() && want.String() != text {
			t.Errorf("%+v is written %q", want, want.String())
		}
	}
	if r := ReleaseOf(150020); r != (Release{15, 20}) {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		a, b  Release
		newer bool
	}{{Release{15, 20}, Release{15, 18}, true}, {Release{15, 18}, Release{15, 18}, false}, {Release{15, 17}, Release{15, 18}, false},
		{Release{16, 20}, Release{15, 18}, false}, {Release{}, Release{15, 18}, false}, {Release{15, 20}, Release{}, false}} {
		if c.a.Newer(c.b) != c.newer {
			t.Errorf("%v newer than %v: %v", c.a, c.b, !c.newer)
		}
	}
}

// The programs are asked again when a package has put others in their place.
func TestInstalledFollowsThePrograms(t *testing.T) {
	dir := t.TempDir()
	asked := filepath.Join(t.TempDir(), "asked")
	put := func(says string) {
		t.Helper()
		path := filepath.Join(dir, "postgres")
		if err := os.WriteFile(path+".new", []byte("#!/bin/sh\necho x >>"+asked+"\necho 'postgres (PostgreSQL) "+says+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	var i Installed
	b := Binaries{Dir: dir, Major: 15}
	is := func(want Release, code string) {
		t.Helper()
		if got, err := i.Of(b); got != want || problem.CodeOf(err) != code {
			t.Errorf("%+v, %v; want %+v, %q", got, err, want, code)
		}
	}
	is(Release{}, "binaries_missing")
	put("15.18 (Debian 15.18-0+deb12u1)")
	is(Release{15, 18}, "")
	is(Release{15, 18}, "")
	if text, err := os.ReadFile(asked); err != nil || string(text) != "x\n" {
		t.Errorf("the programs were asked again though they are the same: %q, %v", text, err)
	}
	put("15.20")
	is(Release{15, 20}, "")
	put("15.21")
	// The same file, written to in place.
	if err := os.Chtimes(filepath.Join(dir, "postgres"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	is(Release{15, 21}, "")
	put("15beta1")
	is(Release{15, 0}, "")
	put("16.2")
	is(Release{}, "binaries_changed")
	put("what?")
	is(Release{}, "binaries_broken")
	put("15.22")
	is(Release{15, 22}, "")
}
