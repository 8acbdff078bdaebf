package link

import (
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// What is under way comes first, and what nobody would read is counted.
func TestSeedingTables(t *testing.T) {
	named := func(name string, total, done int64, copying, copied bool) seed.TableProgress {
		return seed.TableProgress{Table: sqlname.Table{Schema: "s", Name: name}, BytesTotal: total, BytesDone: done, Copying: copying, Copied: copied}
	}
	list := []seed.TableProgress{named("a", 10, 10, false, true), named("b", 10, 0, false, false), named("c", 90, 0, false, false), named("d", 5, 1, true, false), named("e", 7, 1, true, false), named("f", 20, 20, false, true)}
	got := seedingTables("sales", list, 5)
	var order []string
	for _, one := range got.Tables {
		order = append(order, one.Table+" "+one.State)
	}
	if want := []string{"s.e copying", "s.d copying", "s.c waiting", "s.b waiting", "s.f copied"}; !slices.Equal(order, want) || got.More != 1 || !got.Known {
		t.Errorf("%q, %+v", order, got)
	}
	if got := seedingTables("sales", nil, 5); got.Tables == nil || got.More != 0 {
		t.Errorf("of no table %+v", got)
	}
}
