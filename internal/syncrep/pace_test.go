package syncrep

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/role"
)

func TestPace(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var p Pace
	for _, c := range []struct {
		after          time.Duration
		end, confirmed lsn.LSN
		age            time.Duration
		met            bool
	}{
		{0, 100, 0, 0, false},                          // the first look knows nothing
		{time.Second, 200, 50, time.Second, false},     // 100 is not there
		{time.Second, 300, 99, 2 * time.Second, false}, // still not
		{time.Second, 400, 100, 3 * time.Second, true}, // 100 took three seconds; the mark is 400
		{time.Second, 400, 400, time.Second, true},     // an idle database
		{time.Second, 400, 400, time.Second, true},     //
		{time.Second, 500, 0, time.Second, false},      // the stream broke
		{time.Second, 500, 0, 2 * time.Second, false},  //
		{time.Second, 500, 450, 3 * time.Second, true}, // it came back: 400 is there; the mark is 500
		{time.Millisecond, 500, 450, time.Millisecond, false},
	} {
		now = now.Add(c.after)
		if age, met := p.Look(now, c.end, c.confirmed); age != c.age || met != c.met {
			t.Errorf("end %s, confirmed %s: %v %v, want %v %v", c.end, c.confirmed, age, met, c.age, c.met)
		}
	}
}

func TestJudgeMode(t *testing.T) {
	const timeout = 10 * time.Second
	for _, c := range []struct {
		phase        role.Phase
		engaged      bool
		timeout, age time.Duration
		met          bool
		want         Verdict
	}{
		{role.Replicating, false, timeout, InStep, true, Engage},
		{role.Replicating, false, timeout, InStep + 1, true, Stay},              // it lags
		{role.Replicating, false, 2 * time.Second, time.Second + 1, true, Stay}, // it would soon be given up
		{role.Replicating, false, 0, InStep, true, Engage},
		{role.Replicating, false, timeout, 0, false, Stay},
		{role.CatchingUp, false, timeout, 0, true, Stay},
		{role.Broken, false, timeout, 0, true, Stay},
		{role.Replicating, true, timeout, timeout, false, Stay},
		{role.Replicating, true, timeout, timeout + 1, false, Degrade},
		{role.Replicating, true, timeout, timeout + 1, true, Stay}, // late, but there
		{role.Broken, true, timeout, timeout + 1, false, Degrade},
		{role.Replicating, true, 0, time.Hour, false, Stay}, // it waits for ever
		{role.Broken, true, 0, time.Hour, false, Stay},
		{role.Suspended, true, 0, 0, true, Release},
		{role.Seeding, true, 0, 0, true, Release},
		{role.Creating, false, 0, 0, true, Release},
		{role.FailingOver, true, 0, time.Hour, false, Stay},
	} {
		if got := Judge(c.phase, c.engaged, c.timeout, c.age, c.met); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
