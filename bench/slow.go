package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/terminal"
)

const (
	slowSource       = "slow"
	slowScale        = 9
	slowNotes        = 60_000 // about 1 kB each
	slowTransactions = 20_000
)

// distant is a follower on the other side of a slow network.
type distant struct {
	name, database             string
	way                        *network
	establish, suspend, resume func(context.Context) error
	close                      func()
	// rows is the share of the network's rate that was used while rows were copied; 0 where
	// that is not known.
	rows float64
}

// slowCase compares a first copy and a backlog over a slow network: seconds, and bytes
// on the wire.
func slowCase(ctx context.Context, r *rig, out *results) error {
	host, err := outside()
	if err != nil {
		out.missing("slow", err.Error())
		return nil
	}
	if err := r.loadSlow(ctx); err != nil {
		return err
	}
	var list []*distant
	defer func() {
		for _, d := range list {
			d.close()
		}
	}()
	for _, c := range []struct {
		name string
		make func(context.Context, string) (*distant, error)
	}{{"twinspan", r.distantTwinspan}, {"native", r.distantNative}} {
		if !r.asked(r.candidates, c.name) {
			continue
		}
		d, err := c.make(ctx, host)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		list = append(list, d)
	}
	size, err := value[int64](ctx, r.a, slowSource, `SELECT sum(pg_table_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := d.timed(ctx, out, "copy of "+terminal.Size(size), d.establish); err != nil {
			return err
		}
		if d.rows > 0 {
			out.number("slow rows rate "+d.name, d.rows)
			out.line("slow network, %s while rows are copied: %.0f %% of its rate", d.name, 100*d.rows)
		}
		if err := d.suspend(ctx); err != nil {
			return err
		}
	}
	n := r.amount(slowTransactions)
	if _, err := command(ctx, nil, r.a.program("pgbench"), "-n", "-c", "4", "-j", "2", "-t", strconv.Itoa((n+3)/4), r.a.conninfo(slowSource, overSocket)); err != nil {
		return err
	}
	if err := r.a.exec(ctx, slowSource, `INSERT INTO marker VALUES (1)`); err != nil {
		return err
	}
	for _, d := range list {
		if err := d.timed(ctx, out, fmt.Sprintf("backlog of %d TPC-B", n), func(ctx context.Context) error {
			if err := d.resume(ctx); err != nil {
				return err
			}
			return until(ctx, 20*time.Millisecond, func() (bool, error) {
				return value[bool](ctx, r.b, d.database, `SELECT EXISTS (SELECT FROM marker)`)
			})
		}); err != nil {
			return err
		}
	}
	return r.compareSlow(ctx, list)
}

// timed does something and tells what it took.
func (d *distant) timed(ctx context.Context, out *results, what string, do func(context.Context) error) error {
	before, began := d.way.passed(), time.Now()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %s: %w", d.name, what, err)
	}
	wire, seconds := d.way.passed()-before, time.Since(began).Seconds()
	kind, _, _ := strings.Cut(what, " ")
	out.number("slow "+kind+" bytes "+d.name, float64(wire))
	out.line("slow network, %s: %-9s %6.2f s, %9s on the wire, %3.0f %% of its rate", what, d.name, seconds, terminal.Size(wire), 100*float64(wire)/seconds/slowRate)
	return nil
}

// loadSlow makes the database that crosses the network.
func (r *rig) loadSlow(ctx context.Context) error {
	if err := r.a.exec(ctx, "postgres", "CREATE DATABASE "+slowSource); err != nil {
		return err
	}
	if _, err := command(ctx, nil, r.a.program("pgbench"), "-i", "-q", "-s", strconv.Itoa(r.amount(slowScale)), r.a.conninfo(slowSource, overSocket)); err != nil {
		return err
	}
	return r.a.exec(ctx, slowSource, `CREATE TABLE marker (n int PRIMARY KEY)`, `CREATE TABLE notes (id int PRIMARY KEY, body text)`,
		fmt.Sprintf(`INSERT INTO notes SELECT i, (SELECT string_agg('word ' || md5((i * 20 + j)::text), ' ') FROM generate_series(1, 25) j) FROM generate_series(1, %d) i`,
			r.amount(slowNotes)), publicationSQL, "VACUUM ANALYZE", "CHECKPOINT")
}

// distantTwinspan makes a pair of agents with the network between them.
func (r *rig) distantTwinspan(ctx context.Context, host string) (*distant, error) {
	d := &distant{name: "twinspan"}
	p, err := r.newPair(ctx, "slow", r.program, r.overSource(), r.over(), func(address string) (string, error) {
		way, err := newNetwork(host, address)
		if err != nil {
			return "", err
		}
		d.way = way
		return way.address(), nil
	})
	if err != nil {
		if d.way != nil {
			d.way.close()
		}
		return nil, err
	}
	t := &twinspan{r: r, label: "slow", pair: p, db: slowSource}
	d.database, d.suspend, d.resume = t.database(), t.suspend, t.resume
	d.establish = func(ctx context.Context) error {
		_, err := p.a.client.CreateLink(ctx, api.CreateLink{Name: t.link(), Database: slowSource, Peer: p.b.label, PeerDatabase: d.database})
		if err != nil {
			return err
		}
		return d.watchRows(ctx, t)
	}
	d.close = func() {
		_ = p.close()
		d.way.close()
	}
	return d, nil
}

// watchRows waits until the link replicates, and measures the network while its rows cross.
func (d *distant) watchRows(ctx context.Context, t *twinspan) error {
	const copying = "copying tables"
	type mark struct {
		at     time.Time
		passed int64
	}
	var from, to mark
	step := ""
	err := t.watch(ctx, 10*time.Millisecond, func(l api.Link) bool {
		now := mark{time.Now(), d.way.passed()}
		switch was := step; {
		case l.Seeding.Step == copying && was != copying:
			from = now
		case l.Seeding.Step != copying && was == copying:
			to = now
		}
		step = l.Seeding.Step
		return l.Phase == api.Replicating
	})
	if err == nil && to.at.After(from.at) {
		d.rows = float64(to.passed-from.passed) / to.at.Sub(from.at).Seconds() / slowRate
	}
	return err
}

// distantNative makes a subscription that reaches its publisher over the network.
func (r *rig) distantNative(ctx context.Context, host string) (*distant, error) {
	way, err := newNetwork(host, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.a.Port)))
	if err != nil {
		return nil, err
	}
	d := &distant{name: "native", database: "slow_native", way: way, close: way.close}
	_, port, err := net.SplitHostPort(way.address())
	if err != nil {
		return nil, err
	}
	conninfo := fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=%s", host, port, instance.Superuser, r.a.password, slowSource, r.over().sslmode())
	alter := func(what string) func(context.Context) error {
		return func(ctx context.Context) error {
			return r.b.exec(ctx, d.database, "ALTER SUBSCRIPTION bench_slow "+what)
		}
	}
	d.suspend, d.resume = alter("DISABLE"), alter("ENABLE")
	d.establish = func(ctx context.Context) error {
		if err := r.copySchema(ctx, slowSource, d.database); err != nil {
			return err
		}
		if err := r.b.exec(ctx, d.database, `CREATE SUBSCRIPTION bench_slow CONNECTION `+sqlname.Literal(conninfo+noCertificate)+` PUBLICATION `+publication+` WITH (binary = true)`); err != nil {
			return err
		}
		return r.subscribed(ctx, d.database)
	}
	return d, nil
}

// compareSlow sees that the copies equal the source.
func (r *rig) compareSlow(ctx context.Context, list []*distant) error {
	tables := append([]string{"notes"}, pgbenchTables...)
	want, err := digests(ctx, r.a.dsn(slowSource), tables)
	if err != nil {
		return err
	}
	for _, d := range list {
		got, err := digests(ctx, r.b.dsn(d.database), tables)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if got[t] != want[t] {
				return fmt.Errorf("slow network: %s: table %s has %s instead of %s", d.name, t, got[t], want[t])
			}
		}
	}
	return nil
}
