package role

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The files in testdata are scenarios of two sides, a and b, of which a is the primary at the
// beginning. Each block has commands, a line of four dashes, and what they lead to; a line
// that begins with # is a comment. TWINSPAN_GENERATE=1 writes what they lead to anew.
//
//	a asks                  how the other side stands; also: begins a failover, goes on with it,
//	                        decides it, gives it up, crashes, reports
//	a event NAME            steps a side, and shows what the table refuses
//	force a                 is what an operator does
//	deliver [KIND]          brings all messages that are on their way, or the first one of a kind
//	lose [KIND]             takes them off the network
//	new                     begins anew, with two sides that have just been made
//	show                    shows both sides
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if os.Getenv("TWINSPAN_GENERATE") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s leads elsewhere:\n%s", file, got)
			}
		})
	}
}

// play runs a scenario and returns it with what it leads to.
func play(t *testing.T, text string) string {
	t.Helper()
	p := newPair()
	var out, led strings.Builder
	skipping := false // what the file says that the commands lead to
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			skipping = false
			led.Reset()
		case skipping:
			continue
		case line == "----":
			skipping = true
			out.WriteString("----\n")
			if led.Len() == 0 {
				led.WriteString("nothing\n")
			}
			out.WriteString(led.String())
			continue
		case !strings.HasPrefix(line, "#"):
			led.WriteString(p.command(t, line))
			p.check(t)
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

var sideNames = []string{"a", "b"}

// command does what a line says and returns what it has led to.
func (p *pair) command(t *testing.T, line string) string {
	t.Helper()
	before, sent := p.sides, slices.Clone(p.net)
	who, what, _ := strings.Cut(line, " ")
	i := slices.Index(sideNames, who)
	acts := map[string]int{"asks": 0, "begins a failover": 3, "goes on with it": 4, "decides it": 5, "gives it up": 6, "crashes": 7, "reports": 10}
	n, known := acts[what]
	event, isEvent := strings.CutPrefix(what, "event ")
	switch {
	case who == "show" && what == "":
		return fmt.Sprintf("a: %s\nb: %s\n", p.sides[0], p.sides[1])
	case who == "new" && what == "":
		*p = pair{sides: [2]machine{{State: State{Role: Primary, Phase: Creating, Epoch: 1}}, {State: State{Role: Secondary, Phase: Creating, Epoch: 1}}}}
	case who == "force" && slices.Contains(sideNames, what):
		i = slices.Index(sideNames, what)
		if _, err := Step(p.sides[i].State, Force); err != nil {
			return fmt.Sprintf("%s: %v\n", what, err)
		}
		p.force(i)
	case who == "deliver":
		return p.deliverAll(what)
	case who == "lose":
		p.net = slices.DeleteFunc(p.net, func(m message) bool { return what == "" || m.kind == what })
	case i >= 0 && isEvent:
		if !slices.Contains(Events(), Event(event)) {
			t.Fatalf("%q is no event", event)
		}
		if _, err := Step(p.sides[i].State, Event(event)); err != nil {
			return fmt.Sprintf("%s: %v\n", who, err)
		}
		p.happen(i, Event(event))
	case i >= 0 && known:
		p.act(i, n, 0)
	default:
		t.Fatalf("%q is no command", line)
	}
	return p.since(before, sent)
}

// deliverAll brings messages, and those that they cause, until none is left, or the first one
// of a kind.
func (p *pair) deliverAll(kind string) string {
	var led strings.Builder
	for {
		n := slices.IndexFunc(p.net, func(m message) bool { return kind == "" || m.kind == kind })
		if n < 0 {
			return led.String()
		}
		before, sent := p.sides, slices.Delete(slices.Clone(p.net), n, n+1)
		p.deliver(n)
		led.WriteString(p.since(before, sent))
		if kind != "" {
			return led.String()
		}
	}
}

// since says what has changed: sides, and messages that were sent.
func (p *pair) since(before [2]machine, sent []message) string {
	var led strings.Builder
	for i, s := range p.sides {
		if s.State != before[i].State {
			fmt.Fprintf(&led, "%s: %s\n", sideNames[i], s)
		}
	}
	for _, m := range p.net[min(len(sent), len(p.net)):] {
		fmt.Fprintf(&led, "%s -> %s: %s\n", sideNames[1-m.to], sideNames[m.to], strings.TrimSpace(m.kind+" "+m.op))
	}
	return led.String()
}

// String describes a side in one line.
func (s machine) String() string {
	words := []string{fmt.Sprintf("%s %s, epoch %d", s.Role, s.Phase, s.Epoch)}
	if s.Operation != "" {
		words = append(words, s.Operation)
	}
	if s.Diverged {
		words = append(words, "diverged")
	}
	if !s.Seeded {
		words = append(words, "copy not whole")
	}
	if s.Writable() {
		words = append(words, "takes writes")
	}
	return strings.Join(append(words, "work: "+string(s.Work())), ", ")
}
