package test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A link that copies much over a narrow way leaves another one its share: that is made,
// copied and brought up to a commit before the first is done.
func TestSmallLinkBesideOneThatCopiesMuch(t *testing.T) {
	t.Parallel()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	var ways []*toxiproxy.Proxy
	p := linktest.New(t, linktest.Options{Advertise: func(name, listen string) string {
		way := toxiproxy.NewProxy(server, name, net.JoinHostPort("127.0.0.1", fmt.Sprint(pgtest.FreePort())), listen)
		if err := way.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(way.Stop)
		ways = append(ways, way)
		return way.Listen
	}})
	for _, name := range []string{"large", "small"} {
		p.A.Server.CreateDatabase(t, name)
	}
	var tables []string
	for i := range 8 {
		tables = append(tables, fmt.Sprintf(`CREATE TABLE t%d AS SELECT i, repeat(md5(i::text), 10) AS v FROM generate_series(1, 60000) i`, i))
	}
	pgtest.Exec(t, p.A.Server.DSN("large"), tables...)
	pgtest.Exec(t, p.A.Server.AppDSN("small"), `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t SELECT generate_series(1, 1000)`)
	for _, way := range ways {
		for _, stream := range []string{"upstream", "downstream"} {
			if _, err := way.Toxics.AddToxicJson(strings.NewReader(`{"name": "` + stream + `", "type": "bandwidth", "stream": "` + stream + `", "attributes": {"rate": 1000}}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.Create(t, "large", "large")
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "large")
		if err == nil && l.Seeding.BytesDone == 0 {
			err = fmt.Errorf("phase %s, %+v", l.Phase, l.Seeding)
		}
		return err
	})
	p.Create(t, "small", "small")
	p.WaitPhase(t, "small", api.Replicating)
	pgtest.Exec(t, p.A.Server.DSN("small"), `INSERT INTO t VALUES (0)`)
	p.WaitEqual(t, "small", "small")
	l, err := p.B.Client.Link(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	if l.Phase != api.Seeding || l.Seeding.BytesDone >= l.Seeding.BytesTotal {
		t.Errorf("the small link came to its end after the large one's copy: %s, %+v", l.Phase, l.Seeding)
	}
	for _, way := range ways {
		for _, stream := range []string{"upstream", "downstream"} {
			if err := way.Toxics.RemoveToxic(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.WaitPhase(t, "large", api.Replicating)
	p.WaitEqual(t, "large", "large")
}
