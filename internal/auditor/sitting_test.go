package auditor

import (
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/audit"
	"github.com/twinspan/twinspan/internal/verify"
)

// What differed at one position, and could not be looked at at another, is neither told nor
// forgotten: the pass goes on with it.
func TestWhatNobodyLookedAtAgainKeepsThePassOpen(t *testing.T) {
	began := time.Now()
	compared := began.Add(time.Second)
	s := &sitting{done: true, items: []item{
		{Item: audit.Item{Kind: audit.Table, Name: "equal", Compared: compared, Equal: began}},
		{Item: audit.Item{Kind: audit.Table, Name: "odd", Compared: compared, Odd: true}},
	}, odd: []oddity{{1, verify.Findings{}}}}
	missed := errors.New("the position was passed")
	if err := s.abandon(missed); !errors.Is(err, missed) {
		t.Errorf("the error is %v", err)
	}
	if s.done {
		t.Error("the pass is over")
	}
	plain := []audit.Item{s.items[0].Item, s.items[1].Item}
	if next, found := audit.Next(plain, began); !found || plain[next].Name != "odd" {
		t.Errorf("next is %d, %t of %+v", next, found, plain)
	}
}
