package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// proxied gives each side's address a proxy in front, so that whichever agent
// dials the other goes through one that can be cut.
func proxied(t *testing.T) (linktest.Options, func(up bool)) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	var proxies []*toxiproxy.Proxy
	advertise := func(name, listen string) string {
		p := toxiproxy.NewProxy(server, name, net.JoinHostPort("127.0.0.1", fmt.Sprint(pgtest.FreePort())), listen)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		proxies = append(proxies, p)
		return p.Listen
	}
	set := func(up bool) {
		for _, p := range proxies {
			var err error
			if up {
				err = p.Start()
			} else {
				p.Stop()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return linktest.Options{Advertise: advertise}, set
}

// A network that is cut again and again, during seeding and after, costs time and
// nothing else; finished chunks are not copied again.
func TestCutNetwork(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := linktest.New(t, options)
	p.A.Server.CreateDatabase(t, "bank")
	a := p.A.Server.DSN("bank")
	if err := pgbench(t, t.Context(), p.A, "bank", "-i", "-s", "10", "-q"); err != nil {
		t.Fatal(err)
	}
	stop := load(t, p.A, "bank", 2)
	defer stop()
	p.Create(t, "bank", "bank")
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	for range 8 {
		pause(t, time.Duration(200+rng.IntN(1500))*time.Millisecond)
		network(false)
		pause(t, time.Duration(rng.IntN(800))*time.Millisecond)
		network(true)
	}
	p.WaitPhase(t, "bank", api.Replicating)
	stop()
	p.WaitEqual(t, "bank", "bank")
	// The snapshot was held by the primary's agent all the time: one was enough.
	if n := pgtest.Query(t, p.B.Server.DSN("bank"), `SELECT count(*) FROM twinspan.seed_session`)[0][0]; n != "1" {
		t.Errorf("%s seeding sessions were needed", n)
	}
	pgtest.Exec(t, a, `UPDATE pgbench_branches SET bbalance = 0`)
	p.WaitEqual(t, "bank", "bank")
}
