package pgtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/twinspan/twinspan/internal/instance"
)

// Programs is a directory of a server's programs in whose place a newer minor release can be put, as the upgrade of a package does.
type Programs struct {
	Dir          string
	Older, Newer instance.Release // the first ones, and those that Upgrade puts in their place
	newer        string
}

// NewPrograms makes a directory of programs, of the release that is installed with those named beside the server's. It returns nil, and says so, where scripts/fetch-newest
// could bring no newer one: then there is nothing to test with.
func NewPrograms(t testing.TB, beside ...string) *Programs {
	t.Helper()
	older, err := instance.FindBinariesWith(0, beside...)
	if err != nil {
		t.Fatal(err)
	}
	newer, ok := newestMinor(older.Major)
	if !ok {
		t.Log("nothing was tested: there is no other minor release of the server that is installed; scripts/fetch-newest brings it where it can")
		return nil
	}
	var first, second instance.Installed
	p := &Programs{Dir: filepath.Join(Dir(t), "bin"), newer: newer.Dir}
	if p.Older, err = first.Of(older); err == nil {
		p.Newer, err = second.Of(newer)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !p.Newer.Newer(p.Older) {
		t.Logf("nothing was tested: the release that is installed, %s, is the newest", p.Older)
		return nil
	}
	p.put(t, older.Dir)
	return p
}

// Upgrade puts the newer release in place.
func (p *Programs) Upgrade(t testing.TB) {
	t.Helper()
	p.put(t, p.newer)
}

// Env lets agents find the programs before all others.
func (p *Programs) Env() []string { return []string{instance.BinariesEnv + "=" + p.Dir} }

func (p *Programs) put(t testing.TB, dir string) {
	t.Helper()
	next := p.Dir + ".next"
	if err := os.Symlink(dir, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, p.Dir); err != nil {
		t.Fatal(err)
	}
}
