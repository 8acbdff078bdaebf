package setup

import (
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lease"
)

// Of a link that two databases hold, and nothing tells the copy from it, neither is taken.
func TestCopiesAreNotTaken(t *testing.T) {
	stray := func(id, agent, database, doubt string) lease.Stray {
		return lease.Stray{Stray: catalog.Stray{Link: &catalog.Link{ID: id, Name: "link " + id, Agent: agent}, Doubt: doubt}, Database: database}
	}
	agents, passed := divide([]lease.Stray{
		stray("1", "x", "sales", ""), stray("1", "x", "copy", ""),
		stray("2", "x", "shop", ""), stray("2", "x", "copy of shop", "it is one"),
		stray("3", "y", "other", ""),
	})
	if len(agents) != 2 || len(agents["x"]) != 1 || agents["x"][0].Database != "shop" || len(agents["y"]) != 1 {
		t.Errorf("taken: %+v", agents)
	}
	if len(passed) != 3 || passed[0].Database != "sales" || passed[1].Database != "copy" || passed[2].Why != "it is one" {
		t.Errorf("passed by: %+v", passed)
	}
}
