package backup

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// fake is a repository: an Engine that copies nothing but names.
type fake struct {
	Engine   // nil: what is not here is not called
	has      []string
	away     bool // it does not answer
	owed     []string
	whenPaid func() // is called when the repository is not left out any more
}

var errAway = problem.New(problem.Transient, "backup_store_unreachable", "away")

func (f *fake) Forget() error { return nil }

func (f *fake) Segment(_ context.Context, name, file string) error {
	if !slices.Contains(f.has, name) {
		return problem.New(problem.NotFound, "restore_log_missing", "no %s", name)
	}
	return nil
}

func (f *fake) Push(_ context.Context, file string) error {
	if f.away {
		return errAway
	}
	f.has = append(f.has, filepath.Base(file))
	return nil
}

func (f *fake) Check(context.Context, string) error {
	if f.away {
		return errAway
	}
	return problem.New(problem.Internal, "backup_failed", "the server does not have it any more")
}

func (f *fake) Owed(lift bool) ([]string, error) {
	if lift && f.whenPaid != nil {
		f.whenPaid()
	}
	return f.owed, nil
}

func (f *fake) Segments(context.Context) ([]string, error) { return f.has, nil }

func (f *fake) Paid() error { f.owed = nil; return nil }

// A repository that did not answer for a while gets out of another what it has missed, and what it misses meanwhile; of what is
// nowhere any more a full backup follows.
func TestMissedLogIsBrought(t *testing.T) {
	const one, two, three = "000000010000000000000001", "000000010000000000000002", "000000010000000000000003"
	good, other := &fake{has: []string{one, two, three}}, &fake{away: true, owed: []string{one, "00000002.history"}}
	dir := t.TempDir()
	k := &Keeper{Dir: dir, Repository: "/good", Log: slog.New(slog.DiscardHandler), Engine: func(n int) Engine { return []*fake{good, other}[n-1] },
		Put: func(file string, text []byte) error { return os.WriteFile(file, text, 0o600) }}
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	if err := k.SetPolicy(Policy{7, []Repository{{1, "/good"}, {2, "/other"}}}, nil); err != nil {
		t.Fatal(err)
	}
	s := k.stores[1]
	s.heal(t.Context())
	if p := s.problems["archive"]; p == nil || p.Code != "backup_store_unreachable" || p.Subject != "/other" || s.owed != 2 || len(k.stores[0].problems) > 0 {
		t.Fatalf("%+v, %d owed", p, s.owed)
	}
	other.away = false
	other.whenPaid = func() { other.owed = append(other.owed, two) }
	s.heal(t.Context())
	if s.problems["archive"] != nil || s.owed != 0 || s.parted || !slices.Equal(other.has, []string{one, two}) {
		t.Errorf("%+v; it has %v, %d owed", s.problems, other.has, s.owed)
	}
	good.has, other.owed, other.whenPaid = nil, []string{three}, nil
	s.heal(t.Context())
	if !s.parted || s.owed != 0 {
		t.Errorf("what is nowhere is owed still: %+v", s)
	}
	s.contents = &Contents{Sets: []Set{ago(Full, 0)}}
	if task, due := s.next(noon, noon.Add(-1)); !due || task.Type != Full {
		t.Errorf("%+v, %t", task, due)
	}
}
