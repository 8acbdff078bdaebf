package usage

import "testing"

func TestSessionsThatWereNotLogged(t *testing.T) {
	var c counted
	live := []session{{database: "sales"}}
	look := func(n int64, logins int) bool {
		found := make([]login, logins)
		for i := range found {
			found[i].database = "sales"
		}
		return c.unseen(ten, map[string]int64{"sales": n}, live, found)
	}
	// The session that was there is counted late, and each that is logged is allowed for.
	for i, l := range []struct {
		n      int64
		logins int
		want   bool
	}{{100, 5, false}, {101, 0, false}, {103, 2, false}, {104, 0, false}, {104, 1, false}, {105, 0, false}, {105, 0, false}, {105, 0, true}, {3, 0, false}, {4, 1, false}} {
		if got := look(l.n, l.logins); got != l.want {
			t.Errorf("look %d: %t", i, got)
		}
	}
}
