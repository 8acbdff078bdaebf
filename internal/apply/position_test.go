package apply

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// At every position between two transactions, however the stream is cut, the
// target shows what committed before and nothing of what came later.
func TestTargetIsHeldAtAPosition(t *testing.T) {
	const transactions = 12
	for at := 0; at <= transactions; at += 3 {
		p := newPair(t, false, `CREATE TABLE t (id int PRIMARY KEY, v int)`)
		position := p.position()
		for i := range transactions {
			p.do(fmt.Sprintf(`INSERT INTO t VALUES (%[1]d, %[1]d); UPDATE t SET v = v + 1`, i))
			if i+1 == at {
				position = p.position()
			}
		}
		until := p.position()
		a := p.applier(until)
		var seen string
		called := 0
		a.At(position, func(context.Context) {
			called++
			seen = fmt.Sprint(pgtest.Query(t, p.target, `SELECT count(*), coalesce(sum(v), 0) FROM t`)[0])
		})
		if err := p.run(a, p.record(p.messages(), until, rand.New(rand.NewPCG(1, uint64(at))))); err != nil {
			t.Fatal(err)
		}
		// Row i holds i and one for each transaction from its own on.
		sum := at*(at-1)/2 + at*(at+1)/2
		if want := fmt.Sprint([]string{fmt.Sprint(at), fmt.Sprint(sum)}); called != 1 || seen != want {
			t.Errorf("after %d transactions: called %d times, saw %s, want %s", at, called, seen, want)
		}
		if got := pgtest.Query(t, p.target, `SELECT count(*) FROM t`)[0][0]; got != fmt.Sprint(transactions) {
			t.Errorf("in the end %s rows", got)
		}
	}
}
