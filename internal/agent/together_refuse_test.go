package agent

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// A database has one place among links that change places together.
func TestDatabaseIsInOneOfTheLinks(t *testing.T) {
	l := func(name, here, peer, there string) api.Link {
		return api.Link{Name: name, Database: here, Peer: api.LinkPeer{Name: peer, Database: there}}
	}
	for _, c := range []struct {
		links []api.Link
		want  string // what the refusal names
	}{
		{[]api.Link{l("one", "a", "b", "a"), l("two", "a2", "b", "a2"), l("three", "a3", "c", "a")}, ""},
		{[]api.Link{l("one", "a", "b", "a"), l("two", "a", "c", "a")}, "links one and two both have database a here"},
		{[]api.Link{l("one", "a", "b", "x"), l("two", "a2", "b", "x")}, "links one and two both have database x at agent b"},
		{[]api.Link{l("one", "a", "b", "x"), l("two", "x", "c", "a")}, ""},
	} {
		err := sharedDatabase(c.links)
		if c.want == "" && err != nil || c.want != "" && (problem.CodeOf(err) != "database_shared" || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
