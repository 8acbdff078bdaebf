package link

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/audit"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// quietPeers is another side that has nothing to say.
type quietPeers struct{ connected bool }

func (quietPeers) Call(_ context.Context, _, _ string, _, response any) error {
	*response.(*Answer) = Answer{Now: time.Now()}
	return nil
}

func (quietPeers) Open(context.Context, string, string, any) (*peer.Stream, error) {
	return nil, context.Canceled
}

func (q quietPeers) Status(string) (peer.Status, bool) {
	return peer.Status{Connected: q.connected}, true
}

func quietLink(r role.Role, phase role.Phase, connected bool) *Link {
	server, err := pg.ParseDSN("postgres://nobody@127.0.0.1:1/nothing")
	if err != nil {
		panic(err)
	}
	return New(Place{Server: server, Peers: quietPeers{connected}, Log: slog.New(slog.DiscardHandler)}, "",
		catalog.Link{ID: "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11", Name: "sales", Role: string(r), Phase: string(phase), Seeded: true, CreatedAt: time.Now()})
}

// TestReportAndJudge: both run side by side, in the report loop and in the confirm loop of
// a secondary; the race detector sees what they share.
func TestReportAndJudge(t *testing.T) {
	l := quietLink(role.Secondary, role.Replicating, true)
	l.secondary.receiver = &flow.Receiver{}
	over, end := context.WithCancel(t.Context())
	end() // so that judge stops before it stores the step
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			if err := l.report(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 2000 {
		_ = l.judge(over, apply.Status{LastCommit: time.Now().Add(-time.Hour)})
	}
	<-done
}

// figures lists every number, time, position and state that a value shows, by the path to
// it as JSON has it; what is missing is not listed.
func figures(v reflect.Value, path string, list map[string]any) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			figures(v.Elem(), path, list)
		}
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			list[path] = at
			return
		}
		for i := range v.NumField() {
			name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if (options == "omitempty" || options == "omitzero") && v.Field(i).IsZero() {
				continue
			}
			figures(v.Field(i), strings.TrimPrefix(path+"."+name, "."), list)
		}
	case reflect.Int64, reflect.Float64, reflect.String:
		list[path] = v.Interface()
	}
}

// always are the figures of a side's own record, and what follows from them.
func always(path string) bool {
	switch path {
	case "name", "id", "database", "role", "phase", "health", "epoch", "mode", "createdAt", "peer.name", "peer.role", "peer.database":
		return true
	}
	return false
}

// TestWhatIsNotKnownIsNotShown: every figure of a link, in each phase, on both sides, while
// the other is heard, is away, and was never heard, is what was said, or is missing.
func TestWhatIsNotKnownIsNotShown(t *testing.T) {
	const written, sent, received, applied, durable = lsn.LSN(0x1900), lsn.LSN(0x1800), lsn.LSN(0x1700), lsn.LSN(0x1600), lsn.LSN(0x1500)
	phases := []role.Phase{role.Creating, role.Seeding, role.CatchingUp, role.Replicating, role.Suspended, role.FailingOver, role.Fenced, role.Broken}
	for _, side := range []role.Role{role.Primary, role.Secondary} {
		for _, phase := range phases {
			for _, news := range []string{"heard", "away", "never heard", "restarted"} {
				name := fmt.Sprintf("%s, %s, %s", side, phase, news)
				l := quietLink(side, phase, news == "heard")
				want := map[string]any{}
				own := side == role.Secondary
				if own { // which audits: its rate is a setting, and what it does its own
					want["audit.rateBytesPerSecond"], want["audit.state"] = int64(audit.DefaultRate), api.AuditWaiting
				}
				heard := time.Time{}
				switch news {
				case "heard":
					heard = time.Now()
				case "away":
					heard = time.Now().Add(-time.Hour)
				}
				if !heard.IsZero() {
					l.heardLocked(Answer{Written: written, Sent: sent, Now: time.Now()})
					l.live.heard = heard
					want["peer.heardAt"] = heard.UTC()
					lag := 3.5
					if !own {
						l.live.report = Report{Received: received, Applied: applied, Durable: durable, Lag: &lag, Rates: &api.Rates{BytesPerSecond: 7}, Spilled: 9,
							Seeding: api.Progress{TablesTotal: 5, BytesPerSecond: 6, EtaSeconds: 7}}
						want["seeding.tablesTotal"] = int64(5)
						for _, zero := range []string{"seeding.step", "seeding.tablesDone", "seeding.bytesTotal", "seeding.bytesDone"} {
							want[zero] = reflect.Zero(map[bool]reflect.Type{true: reflect.TypeFor[string](), false: reflect.TypeFor[int64]()}[zero == "seeding.step"]).Interface()
						}
						want["seeding.bytesPerSecond"] = int64(0) // as far as this side knows nothing moves
					}
					if news == "heard" && !own {
						want["seeding.bytesPerSecond"], want["seeding.etaSeconds"] = int64(6), 7.0
						want["lag.asOf"] = heard.Add(-3500 * time.Millisecond).UTC()
						want["lag.seconds"], want["rates.bytesPerSecond"], want["spilledBytes"] = lag, 7.0, int64(9)
						want["rates.transactionsPerSecond"], want["rates.changesPerSecond"] = 0.0, 0.0
						want["position.received"], want["position.applied"], want["position.confirmed"] = received.String(), applied.String(), durable.String()
					}
				}
				switch {
				case own && news == "restarted":
					// Not even its own server has answered.
				case own:
					l.secondary.durable = applied
					for _, p := range []string{"received", "applied", "confirmed"} {
						want["position."+p] = applied.String()
					}
					if news == "heard" {
						want["position.written"], want["position.sent"] = written.String(), sent.String()
						want["lag.bytes"] = int64(written - applied)
						// It was never seen to have what the primary had written.
					}
				case news == "restarted":
					// The primary's server has not answered either.
				default:
					l.live.own = measure{written: written, confirmed: durable, now: time.Now(), at: time.Now()}
					want["position.written"] = written.String()
					if news == "heard" {
						want["lag.bytes"] = int64(written - applied)
					} else {
						want["position.confirmed"], want["lag.bytes"] = durable.String(), int64(written-durable)
					}
				}
				switch { // a step of its own no side has here
				case own && phase == role.Creating:
					want["step"] = "waiting to hear from  that it is prepared"
				case !own && phase == role.Fenced:
					want["step"] = "waiting to hear from  which side is the primary"
				}
				v := l.view()
				got := map[string]any{}
				figures(reflect.ValueOf(v), "", got)
				for path, value := range got {
					if _, known := want[path]; !known && !always(path) {
						t.Errorf("%s: %s is shown as %v", name, path, value)
					}
				}
				for path, value := range want {
					if !reflect.DeepEqual(got[path], value) {
						t.Errorf("%s: %s is %v, not %v", name, path, got[path], value)
					}
				}
				if at := phase == role.Replicating || phase == role.CatchingUp; at && v.Health == api.Healthy && v.Lag.Seconds == nil {
					t.Errorf("%s: healthy, and nobody knows how far it is behind", name)
				}
			}
		}
	}
}

func TestHealth(t *testing.T) {
	lag := func(bytes int64, seconds float64) api.Lag { return api.Lag{Bytes: &bytes, Seconds: &seconds} }
	problem := []api.Problem{{Code: "x"}}
	for name, c := range map[string]struct {
		link api.Link
		want api.Health
	}{
		"in step":            {api.Link{Phase: api.Replicating, Lag: lag(100, 0)}, api.Healthy},
		"not known":          {api.Link{Phase: api.Replicating}, api.Degraded},
		"seconds not known":  {api.Link{Phase: api.Replicating, Lag: api.Lag{Bytes: new(int64(0))}}, api.Degraded},
		"a minute behind":    {api.Link{Phase: api.Replicating, Lag: lag(100, 60)}, api.Degraded},
		"a gigabyte behind":  {api.Link{Phase: api.Replicating, Lag: lag(1<<30, 0)}, api.Degraded},
		"catching up, known": {api.Link{Phase: api.CatchingUp, Lag: lag(100, 1)}, api.Healthy},
		"catching up":        {api.Link{Phase: api.CatchingUp}, api.Degraded},
		"copying":            {api.Link{Phase: api.Seeding}, api.Healthy},
		"suspended":          {api.Link{Phase: api.Suspended, Suspended: true, Lag: lag(0, 0)}, api.Degraded},
		"a problem":          {api.Link{Phase: api.Replicating, Lag: lag(0, 0), Problems: problem}, api.Degraded},
		"broken":             {api.Link{Phase: api.Broken}, api.Unhealthy},
		"fenced":             {api.Link{Phase: api.Fenced}, api.Unhealthy},
	} {
		if got := health(c.link); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestWhatATwinIsAsOfStays: a side that does not hear the other any more still says up to
// when the twin has everything, and says nothing of it of another first copy.
func TestWhatATwinIsAsOfStays(t *testing.T) {
	l := quietLink(role.Primary, role.Replicating, true)
	lag := 1.5
	heard := time.Now()
	l.live.report, l.live.heard = Report{Lag: &lag}, heard
	l.live.own = measure{written: 9, at: heard}
	l.live.report.Applied = 7
	want := heard.Add(-1500 * time.Millisecond)
	if v := l.view(); v.Lag.AsOf == nil || !v.Lag.AsOf.Equal(want) {
		t.Errorf("while it is known: %v, not %v", v.Lag.AsOf, want)
	}
	l.live.heard = heard.Add(-time.Hour)
	if v := l.view(); v.Lag.Seconds != nil || v.Lag.AsOf == nil || !v.Lag.AsOf.Equal(want) {
		t.Errorf("while the twin is away: %v, %v", v.Lag.Seconds, v.Lag.AsOf)
	}
	r := l.side.Record()
	r.Seeded = false
	l.side = side.New(l.dsn, l.database, l.place.Peers, l.log, r)
	if v := l.view(); v.Lag.AsOf != nil {
		t.Errorf("of a copy that is made anew: %v", v.Lag.AsOf)
	}
}
