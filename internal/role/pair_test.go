package role

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// machine is one side: what it has stored, and what a crash makes it forget.
type machine struct {
	State
	decided string // the operation by which it became primary

	// A secondary that drives a failover.
	driving string
	acked   bool // the primary has said that it is fenced for it
}

// message is on its way. Networks delay, reorder and lose.
type message struct {
	to    int
	kind  string // ask, answer, begin, fence, fenced, report
	op    string
	epoch int64
	other Other // of an answer or a report: the sender when it was sent
	asked State // of an answer: the asking side when it asked
}

// pair is the model: two sides that follow the rules by which links do.
type pair struct {
	sides  [2]machine
	net    []message
	ops    int
	forced bool // since the sides were last at one
	log    []string
}

func newPair() *pair {
	return &pair{sides: [2]machine{
		{State: State{Role: Primary, Phase: Replicating, Epoch: 1, Seeded: true}},
		{State: State{Role: Secondary, Phase: Replicating, Epoch: 1, Seeded: true}},
	}}
}

func (p *pair) note(format string, a ...any) {
	p.log = append(p.log, fmt.Sprintf(format, a...))
	if len(p.log) > 60 {
		p.log = p.log[1:]
	}
}

func (p *pair) send(m message) { p.net = append(p.net, m) }

// happen steps a side; what the table refuses does not happen.
func (p *pair) happen(i int, e Event) bool {
	next, err := Step(p.sides[i].State, e)
	if err == nil {
		p.note("%d: %s -> %+v", i, e, next)
		p.sides[i].State = next
	}
	return err == nil
}

func (p *pair) learn(i int, e Event, epoch int64) {
	if next, err := Learn(p.sides[i].State, e, epoch); err == nil {
		p.note("%d: %s, epoch %d -> %+v", i, e, epoch, next)
		p.sides[i].State = next
	}
}

func (p *pair) other(i int) Other { return Other{p.sides[i].State, p.sides[i].decided} }

// act lets something happen at a side; n chooses among the lesser events.
func (p *pair) act(i, what, n int) {
	s := &p.sides[i]
	switch what {
	case 0, 1, 2: // ask the other how it stands
		p.send(message{to: 1 - i, kind: "ask", asked: s.State})
	case 3: // drive a failover
		if s.Role == Secondary && s.Phase == Replicating && !s.Diverged {
			p.ops++
			op := fmt.Sprint("op", p.ops)
			if p.happen(i, Begin) {
				s.Operation, s.driving, s.acked = op, op, false
				p.send(message{to: 1 - i, kind: "begin", op: op, epoch: s.Epoch})
			}
		}
	case 4: // go on with it
		if s.driving != "" && s.driving == s.Operation {
			p.send(message{to: 1 - i, kind: "fence", op: s.driving, epoch: s.Epoch})
		}
	case 5: // decide it
		if s.Role == Secondary && s.Phase == FailingOver && s.acked && s.driving == s.Operation {
			op := s.driving
			if p.happen(i, Decide) {
				s.decided, s.driving = op, ""
			}
		}
	case 6: // give it up
		if s.Role == Secondary && s.driving != "" {
			p.happen(i, Undo)
			s.driving, s.acked = "", false
		}
	case 7: // crash, and come back
		s.driving, s.acked = "", false
		if s.Role == Secondary && s.Phase == FailingOver {
			p.happen(i, Undo)
		}
	case 8:
		p.happen(i, []Event{Suspend, Resume, Failed, Resume, CaughtUp, FellBehind, Resume, Isolated, Rejoined}[n])
	case 9:
		p.happen(i, Rejoin)
	case 10: // report
		if s.Role == Secondary {
			p.send(message{to: 1 - i, kind: "report", other: p.other(i)})
		}
	case 11:
		if p.happen(i, CaughtUp) {
			p.send(message{to: 1 - i, kind: "report", other: p.other(i)})
		}
	}
}

// force is what an operator does.
func (p *pair) force(i int) {
	if p.happen(i, Force) {
		p.sides[i].decided, p.sides[i].driving, p.forced = "", "", true
	}
}

// deliver takes a message off the network.
func (p *pair) deliver(n int) {
	m := p.net[n]
	p.net = append(p.net[:n], p.net[n+1:]...)
	s := &p.sides[m.to]
	switch m.kind {
	case "ask":
		p.send(message{to: 1 - m.to, kind: "answer", other: p.other(m.to), asked: m.asked})
	case "answer":
		if m.asked != s.State {
			return
		}
		switch e := Meet(s.State, m.other); e {
		case "":
		case Turned, Superseded, Adopt:
			p.learn(m.to, e, m.other.Epoch)
		default:
			p.happen(m.to, e)
			if e == Undo {
				s.driving = ""
			}
		}
	case "begin":
		if s.Role == Primary && s.Epoch == m.epoch && p.happen(m.to, Begin) {
			s.Operation = m.op
		}
	case "fence":
		if s.Role == Primary && s.Epoch == m.epoch && s.Operation == m.op && (s.Phase == Fenced || p.happen(m.to, Fence)) {
			p.send(message{to: 1 - m.to, kind: "fenced", op: m.op})
		}
	case "fenced":
		if s.driving == m.op {
			s.acked = true
		}
	case "report":
		if s.Role != Primary || s.Epoch != m.other.Epoch {
			return
		}
		if s.Diverged && !m.other.Diverged {
			p.happen(m.to, PeerRejoined)
		}
		events := map[Phase]Event{Seeding: PeerSeeding, CatchingUp: PeerCatchingUp, Replicating: PeerReplicating, Broken: PeerBroken}
		if e, ok := events[m.other.Phase]; ok {
			p.happen(m.to, e)
		}
	}
}

func (p *pair) check(t *testing.T) {
	t.Helper()
	a, b := p.sides[0], p.sides[1]
	switch {
	case !a.Writable() || !b.Writable():
		return
	case a.Epoch == b.Epoch:
		t.Fatalf("both sides write, with one epoch\n%s", strings.Join(p.log, "\n"))
	case !p.forced:
		t.Fatalf("both sides write, and nobody forced it\n%s", strings.Join(p.log, "\n"))
	}
}

// calm lets both sides find together without further trouble.
func (p *pair) calm() {
	for round := range 12 {
		for i := range p.sides {
			p.act(i, 0, 0)
			if round > 3 {
				p.act(i, 9, 0)
				p.happen(i, Rejoined)
				p.act(i, 10, 0)
			}
		}
		for len(p.net) > 0 {
			p.deliver(0)
		}
		for i := range p.sides {
			if s := p.sides[i]; s.Role == Secondary && s.Phase == FailingOver && s.driving == "" {
				p.happen(i, Undo)
			}
			p.act(i, 6, 0)
		}
	}
}

// Two sides, a network that loses and delays, crashes, operators: never do both
// accept writes unless somebody forced it, never with the same epoch, and when
// the trouble is over exactly one does.
func TestRandomWalkOfAPair(t *testing.T) {
	const steps = 2_000_000
	rng := rand.New(rand.NewPCG(7, 11))
	p := newPair()
	often := []int{0, 1, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 7, 8, 9, 10, 11, 11, 11, 11}
	decided, forces, calms := 0, 0, 0
	for step := range steps {
		before := p.sides
		switch n := rng.IntN(100); {
		case n < 35:
			p.act(rng.IntN(2), often[rng.IntN(len(often))], rng.IntN(9))
		case n < 96 && len(p.net) > 0:
			p.deliver(rng.IntN(len(p.net)))
		case n < 98 && len(p.net) > 0:
			p.net = p.net[:len(p.net)-1]
		case n == 99 && rng.IntN(40) == 0:
			p.force(rng.IntN(2))
			forces++
		}
		if len(p.net) > 12 {
			p.net = p.net[1:]
		}
		p.check(t)
		for i, s := range p.sides {
			if s.Role == Primary && s.decided != before[i].decided && s.decided != "" {
				decided++
			}
		}
		if step%997 == 0 {
			p.calm()
			calms++
			p.check(t)
			a, b := p.sides[0], p.sides[1]
			if a.Writable() == b.Writable() {
				t.Fatalf("after the trouble: %+v and %+v\n%s", a, b, strings.Join(p.log, "\n"))
			}
			if a.Epoch != b.Epoch || a.Diverged || b.Diverged {
				t.Fatalf("not at one after the trouble: %+v and %+v\n%s", a, b, strings.Join(p.log, "\n"))
			}
			p.forced = false
		}
	}
	t.Logf("%d steps, %d planned failovers, %d forced, %d times calm", steps, decided, forces, calms)
	if decided < 1000 || forces < 100 {
		t.Error("the walk does not get anywhere")
	}
}
