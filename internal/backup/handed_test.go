package backup

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/lsn"
)

func TestMissingOfInheritedLog(t *testing.T) {
	lines, err := parseHistory("1\t0/5800000\tno recovery target specified\n\n# a word\n2\t0/9000000\tno recovery target specified\n")
	if err != nil || !slices.Equal(lines, []timeline{{1, lsn.LSN(0x5800000)}, {2, lsn.LSN(0x9000000)}}) {
		t.Fatalf("%v, %v", lines, err)
	}
	in := inherited{lines: lines}
	full := Contents{Sets: []Set{{Kind: Full, From: 0x1000028}, {Kind: Full, From: 0x3000028}, {Kind: Differential, From: 0x7000028}}}
	// 5 is whole on timeline 2 alone; 9 is the server's own.
	all := []string{"000000010000000000000003", "000000010000000000000004", "000000020000000000000005", "000000020000000000000006", "000000020000000000000007", "000000020000000000000008"}
	for _, c := range []struct {
		name string
		have []string
		sets Contents
		want []string
	}{
		{"nothing is there", nil, full, all},
		{"all is there", all, full, nil},
		{"of the former timeline", append([]string{"000000010000000000000005"}, all[:2]...), full, all[2:]},
		{"no backup", nil, Contents{}, nil},
	} {
		if got := in.missing(c.have, c.sets); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
	if got := (inherited{}).missing(nil, full); got != nil {
		t.Errorf("nobody led before: %v", got)
	}
	if _, err := parseHistory("x\t0/1\t\n"); err == nil {
		t.Error("a line that is none was read")
	}
}

// What does not get into a repository of the log of the server that led before is a problem until
// it is there, whatever else is solved.
func TestInheritedLogIsAProblemOfItsOwn(t *testing.T) {
	engine := &fake{away: true, has: []string{"000000010000000000000003"}}
	k := &Keeper{Dir: t.TempDir(), Repository: "/r", Log: slog.New(slog.DiscardHandler), Handed: true,
		Engine: func(int) Engine { return engine }}
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	s := k.stores[0]
	s.contents = &Contents{Sets: []Set{{Kind: Full, From: 0x3000028}}}
	in := inherited{lines: []timeline{{1, lsn.LSN(0x5800000)}}}
	for range 2 {
		s.take(t.Context(), in)
		s.heal(t.Context())
		list := s.problems.list()
		if len(list) != 1 || list[0].Code != "backup_store_unreachable" || list[0].Subject != "/r" || s.followed {
			t.Fatalf("%v", list)
		}
	}
	engine.away = false
	s.take(t.Context(), in)
	if list := s.problems.list(); len(list) > 0 || !s.followed || !s.parted {
		t.Errorf("%v, followed %t", list, s.followed)
	}
}
