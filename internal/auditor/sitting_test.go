package auditor

import (
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/audit"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/verify"
)

// What differed at one position, and could not be looked at at another, is neither told nor
// forgotten: the pass goes on with it.
func TestWhatNobodyLookedAtAgainKeepsThePassOpen(t *testing.T) {
	began := time.Now()
	last := began.Add(-time.Hour)
	s := &sitting{done: true, x: &meet.Sides{Meeting: &meet.Meeting{}}, changed: map[int]bool{}, items: []item{
		{Item: audit.Item{Kind: audit.Table, Name: "equal", Compared: last}},
		{Item: audit.Item{Kind: audit.Table, Name: "odd", Compared: last.Add(time.Minute)}},
	}, odd: []oddity{{1, verify.Findings{}}}}
	for i := range s.items {
		s.begin(i)
		s.items[i].Odd = s.items[i].Name == "odd"
		s.complete(i)
	}
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
	// On a link that is older than what may be overdue, too.
	if late := audit.Late(plain, began.Add(-2*audit.Overdue), began); len(late) > 0 {
		t.Errorf("late are %+v", late)
	}
}

// What was repaired is compared again first, in the pass that is under way as well, and is not late for that.
func TestWhatWasRepairedIsComparedAgain(t *testing.T) {
	began := time.Now()
	a := &Auditor{items: []item{
		{Item: audit.Item{Kind: audit.Table, Name: "never"}},
		{Item: audit.Item{Kind: audit.Table, Name: "repaired", Compared: began.Add(time.Second), Odd: true}, differs: []api.Difference{{Object: "repaired"}}},
		{Item: audit.Item{Kind: audit.Table, Name: "equal", Compared: began.Add(time.Second)}},
	}}
	a.reset()
	plain := []audit.Item{a.items[0].Item, a.items[1].Item, a.items[2].Item}
	if next, found := audit.Next(plain, began); !found || plain[next].Name != "repaired" {
		t.Errorf("next is %d, %t of %+v", next, found, plain)
	}
	if late := audit.Late(plain[1:], began.Add(-2*audit.Overdue), began); len(late) > 0 {
		t.Errorf("late are %+v", late)
	}
	if !a.urgent {
		t.Error("no pass begins at once")
	}
	s := &sitting{x: &meet.Sides{Meeting: &meet.Meeting{}}, changed: map[int]bool{}, items: a.items}
	s.begin(1)
	s.complete(1)
	plain[1] = s.items[1].Item
	if next, found := audit.Next(plain, began); !found || plain[next].Name != "never" {
		t.Errorf("then next is %d, %t of %+v", next, found, plain)
	}
}
