package events

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// told are events as kind.action code text, without those of others.
func told(list []api.Event) string {
	var all []string
	for _, e := range list {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s.%s %s", e.Kind, e.Action, e.Code)))
	}
	return strings.Join(all, "; ")
}

func wantTold(t *testing.T, list []api.Event, want string) {
	t.Helper()
	if got := told(list); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func sight(heard bool, own []string, theirs ...string) Sight {
	view := api.Link{Name: "sales", ID: "i", Database: "db", Peer: api.LinkPeer{Name: "b"}}
	var mine []api.Problem
	for _, code := range own {
		p := api.Problem{Code: code, Severity: api.Warns, Title: code + " is so", Subject: "public.t (id) = (5)"}
		if strings.HasPrefix(code, "stop") {
			p.Severity = api.Blocks
		}
		mine = append(mine, p)
	}
	view.Problems = append(view.Problems, mine...)
	for _, code := range theirs {
		view.Problems = append(view.Problems, api.Problem{Code: code, Severity: api.Warns, Title: code})
	}
	return Sight{Links: []LinkSight{{view, mine, heard}}}
}

func TestProblemsBeginAndEndOnce(t *testing.T) {
	w := NewWatch()
	at := func(s int) time.Time { return moment.Add(time.Duration(s) * time.Second) }
	wantTold(t, w.Look(at(0), sight(true, []string{"slow", "stopped"})), "problem.began stopped")
	list := w.Look(at(1), sight(true, []string{"slow", "stopped"}))
	wantTold(t, list, "problem.began slow")
	if e := list[0]; !e.At.Equal(at(0)) || e.Link != "sales" || e.LinkID != "i" || e.Database != "db" || e.Peer != "b" || e.By.Kind != api.ByAgent ||
		e.Severity != api.Warns || e.Text != "slow is so" {
		t.Errorf("%+v", e)
	}
	wantTold(t, w.Look(at(2), sight(true, []string{"slow", "stopped"})), "")
	list = w.Look(at(3), sight(true, []string{"stopped", "brief"}))
	wantTold(t, list, "problem.ended slow")
	if e := list[0]; e.Seconds == nil || *e.Seconds != 3 || !e.At.Equal(at(3)) {
		t.Errorf("%+v", e)
	}
	wantTold(t, w.Look(at(4), sight(true, nil)), "problem.ended stopped")
	wantTold(t, w.Look(at(5), sight(true, []string{"slow"})), "")
	wantTold(t, w.Look(at(6), sight(true, []string{"slow"})), "problem.began slow")
	w.Forget("i")
	wantTold(t, w.Look(at(7), Sight{}), "")
}

// Each agent begins without its server for a moment.
func TestProblemsOfTheAgentCountOnceTheyLast(t *testing.T) {
	w := NewWatch()
	starting := Sight{Problems: []api.Problem{{Code: "agent_starting", Severity: api.Blocks}}}
	wantTold(t, w.Look(moment, starting), "")
	wantTold(t, w.Look(moment, Sight{}), "")
	wantTold(t, w.Look(moment, starting), "")
	list := w.Look(moment, starting)
	wantTold(t, list, "problem.began agent_starting")
	if list[0].Link != "" || list[0].LinkID != "" {
		t.Errorf("%+v", list)
	}
}

// A title that changes, or the value of a key, makes no other problem of one.
func TestProblemIsItsCodeAndSubject(t *testing.T) {
	w := NewWatch()
	s := sight(true, []string{"stopped"})
	w.Look(moment, s)
	s.Links[0].View.Problems[0].Title = "other words"
	s.Links[0].View.Problems = append(s.Links[0].View.Problems, s.Links[0].View.Problems[0])
	wantTold(t, w.Look(moment, s), "")
	s.Links[0].View.Problems[0].Subject = "public.other"
	wantTold(t, w.Look(moment, s), "problem.began stopped")
}

// What the other side says is not over because the other side is not heard.
func TestProblemsOfTheOtherSideLastWhileItIsNotHeard(t *testing.T) {
	w := NewWatch()
	w.Look(moment, sight(true, nil, "disk_full"))
	wantTold(t, w.Look(moment, sight(true, nil, "disk_full")), "problem.began disk_full")
	wantTold(t, w.Look(moment, sight(false, []string{"stop_here"})), "problem.began stop_here")
	wantTold(t, w.Look(moment, sight(false, nil)), "problem.ended stop_here")
	wantTold(t, w.Look(moment, sight(true, nil, "disk_full")), "")
	wantTold(t, w.Look(moment, sight(true, nil)), "problem.ended disk_full")
}

// After a start, what was open is open for a minute although nobody has found it again yet.
func TestProblemsAreRecalled(t *testing.T) {
	w := NewWatch()
	began := w.Look(moment, sight(true, []string{"stopped", "stop_too", "stop_third"}))
	ended := w.Look(moment, sight(true, []string{"stopped", "stop_too"}))
	start := moment.Add(time.Hour)
	again := NewWatch()
	for _, e := range append(began, ended...) {
		again.Recall(Bounded(e), start)
	}
	wantTold(t, again.Look(start, sight(true, nil)), "")
	wantTold(t, again.Look(start.Add(time.Second), sight(true, []string{"stopped"})), "")
	list := again.Look(start.Add(2*time.Second), sight(true, nil))
	wantTold(t, list, "problem.ended stopped")
	if *list[0].Seconds != 3602 {
		t.Errorf("%+v", list[0])
	}
	wantTold(t, again.Look(start.Add(remembered-1), sight(true, nil)), "")
	wantTold(t, again.Look(start.Add(remembered), sight(true, nil)), "problem.ended stop_too")
}

func TestPeersComeAndGo(t *testing.T) {
	w := NewWatch()
	p := func(name, id, key string) api.Peer { return api.Peer{Name: name, ID: id, Fingerprint: key} }
	wantTold(t, w.Look(moment, Sight{Peers: []api.Peer{p("b", "1", "k")}}), "")
	list := w.Look(moment, Sight{Peers: []api.Peer{p("b", "1", "l"), p("c", "2", "k")}})
	wantTold(t, list, "peer.key; peer.paired")
	if list[0].Peer != "b" || list[1].Peer != "c" {
		t.Errorf("%+v", list)
	}
	wantTold(t, w.Look(moment, Sight{Peers: []api.Peer{p("b", "9", "l")}}), "peer.paired; peer.removed")
	wantTold(t, w.Look(moment, Sight{}), "peer.removed")
}

func TestBackupsAndCopiesBeginAndEnd(t *testing.T) {
	w := NewWatch()
	end := moment.Add(90 * time.Second)
	task := func(number int64, kind, state string) api.BackupTask {
		t := api.BackupTask{Number: number, Kind: kind, State: state, StartedAt: moment}
		if kind == "backup" {
			t.Type = "full"
		}
		if state == "done" || state == "failed" {
			t.EndedAt = &end
		}
		if state == "failed" {
			t.Error = &api.Error{Code: "disk_full", Text: "no space"}
		}
		return t
	}
	look := func(tasks ...api.BackupTask) []api.Event { return w.Look(moment, Sight{Tasks: tasks}) }
	wantTold(t, look(task(1, "backup", "waiting")), "")
	wantTold(t, look(task(1, "backup", "running")), "backup.began")
	list := look(task(1, "backup", "done"), task(2, "verify", "failed"))
	wantTold(t, list, "backup.done; backup.failed disk_full")
	if list[0].Text != "the full backup is done" || *list[0].Seconds != 90 || list[1].Text != "the verification of the backups failed: no space" {
		t.Errorf("%+v", list)
	}
	wantTold(t, look(task(2, "verify", "failed")), "")
	list = w.Look(moment, Sight{Copies: []api.DatabaseCopy{{ID: "2", Database: "d", Name: "n2", State: api.Copying, Peer: "b", Incoming: true}, {ID: "1", Database: "d", Name: "n", State: api.Copying}}})
	wantTold(t, list, "copy.began; copy.began")
	if list[0].Subject != "n" || list[0].By.Kind != api.ByAgent || list[1].By != (api.Actor{Kind: api.ByPeer, Name: "b"}) {
		t.Errorf("%+v", list)
	}
	list = w.Look(moment, Sight{Copies: []api.DatabaseCopy{
		{ID: "2", Database: "d", Name: "n2", State: api.CopyFailed, Restore: &api.Restored{}, Problem: &api.Problem{Code: "disk_full", Title: "no space"}}, {ID: "1", Database: "d", Name: "n", State: api.Copied, Position: "0/5", StartedAt: moment, EndedAt: &end}}})
	wantTold(t, list, "copy.done; copy.failed disk_full")
	if list[0].Text != "the copy of database d as n is done, at position 0/5" || *list[0].Seconds != 90 || list[1].Text != "the restore of database d as n2 was not made: no space" {
		t.Errorf("%+v", list[0])
	}
}

func TestEveryStepOfAFailoverIsTold(t *testing.T) {
	p := api.FailoverProgress{Link: "sales", Type: api.Planned, State: api.FailoverRunning, StartedAt: moment}
	began := p
	wantTold(t, Failover(api.FailoverProgress{}, p), "failover.began")
	p.Steps = []api.FailoverStep{{Name: "one"}}
	one := p
	wantTold(t, Failover(began, p), "failover.step")
	p.Steps = []api.FailoverStep{{Name: "one", Seconds: 1.5, Done: true}, {Name: "two"}}
	list := Failover(one, p)
	wantTold(t, list, "failover.step_done; failover.step")
	if *list[0].Seconds != 1.5 || list[0].Step != "one" || list[1].Step != "two" || list[0].Link != "sales" {
		t.Errorf("%+v", list)
	}
	two, end := p, moment.Add(2*time.Second)
	p.Steps = []api.FailoverStep{{Name: "one", Seconds: 1.5, Done: true}, {Name: "two", Seconds: 0.5, Done: true}}
	p.State, p.EndedAt, p.Primary, p.Epoch, p.HoldSeconds, p.Ended = api.FailoverDone, &end, "b", 4, 0.25, 2
	list = Failover(two, p)
	wantTold(t, list, "failover.step_done; failover.done")
	if e := list[1]; *e.Seconds != 2 || e.Epoch != 4 || e.Text != "the planned failover is done: agent b has the primary; writers waited 0.250 s; 2 transactions were ended" {
		t.Errorf("%+v", e)
	}
	wantTold(t, Failover(p, p), "")
	next := api.FailoverProgress{Link: "sales", Type: api.Forced, State: api.FailoverUndone, StartedAt: end, EndedAt: &end, Steps: []api.FailoverStep{{Name: "one"}},
		Problem: &api.Problem{Code: "timeout", Title: "it took too long"}}
	wantTold(t, Failover(p, next), "failover.began; failover.step; failover.undone timeout")
}

func TestTurnSaysWhatIsOtherwise(t *testing.T) {
	before := Standing{api.Primary, api.CatchingUp, 3}
	e := Turn(before, Standing{api.Secondary, api.Broken, 4}, problem.New(problem.Diverged, "row_missing", "UPDATE finds no row").On("public.t (id) = (5)"))
	if e.Text != "secondary, was primary; broken, was catching up; epoch 4, was 3: UPDATE finds no row" || e.Code != "row_missing" || e.Role != api.Secondary || e.Phase != api.Broken || e.Epoch != 4 || e.Action != "changed" {
		t.Errorf("%+v", e)
	}
	if s, ok := StandingOf(e); !ok || s != (Standing{api.Secondary, api.Broken, 4}) {
		t.Errorf("%+v", s)
	}
	if e := Found(nil, before); e.Action != "found" || e.Text != "found at the start: primary, catching up, epoch 3" {
		t.Errorf("%+v", e)
	}
	if e := Found(&before, Standing{api.Primary, api.Replicating, 3}); !strings.HasSuffix(e.Text, "replicating, was catching up") {
		t.Errorf("%+v", e)
	}
}
