package test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/tier"
)

// On a passive twin the agent's own work, monitoring, backups and administration void no hour; one SELECT of a user voids the hour
// in which it was, and no other, and the user is named. That outlives a killed agent.
func TestUsageNamesWhoVoidsAPassiveHour(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	backed := linktest.HaveBackups(t)
	var port int
	s := linktest.Managed(t, "m", func(c *config.Config) { c.Postgres.NoBackups, port = !backed, c.Postgres.Port })
	p.A.Pair(t, s)
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE shop`)
	pgtest.Exec(t, p.A.Server.DSN("shop"), `CREATE TABLE goods (id int PRIMARY KEY)`)
	pgtest.Exec(t, p.A.Server.DSN("shop"), `INSERT INTO goods SELECT generate_series(1, 1000)`)
	if _, err := s.Client.SetInstance(t.Context(), api.SetInstance{VCores: new(8), MemoryBytes: new(int64(1 << 30)), Benefit: new(tier.PassiveDR)}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "shop", Database: "shop", Peer: "m"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Await(t, linktest.Patience, "the twin replicates", func() error {
		l, err := s.Client.Link(t.Context(), "shop")
		if err == nil && l.Phase != api.Replicating {
			err = fmt.Errorf("%s: %+v", l.Phase, l.Problems)
		}
		return err
	})
	if backed {
		firstBackup(t, s)
	}
	login := func(user, database, application string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=secret dbname=%s application_name='%s' sslmode=disable", port, user, database, application)
	}
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE exporter LOGIN PASSWORD 'secret' IN ROLE pg_monitor`)
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE "Odd ""reporter" LOGIN PASSWORD 'secret' IN ROLE pg_read_all_data`)
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE late LOGIN PASSWORD 'secret'`)
	// Whatever calls itself as the agent's sessions do is not the agent for that; but monitoring is nobody, and so is administration.
	pgtest.Query(t, login("exporter", "shop", "twinspan/shop/apply"), `SELECT count(*) FROM pg_stat_activity`)
	pgtest.Query(t, s.DSN("postgres"), `SELECT 1`)
	// Logins are judged in their order: once a later one is told, those before it were judged.
	usage := func(what string, ok func(api.Usage) bool) (u api.Usage) {
		t.Helper()
		pgtest.Await(t, linktest.Patience, what, func() (err error) {
			if u, err = s.Client.Usage(t.Context(), ""); err != nil {
				return err
			}
			i, err := s.Client.Instance(t.Context())
			if err != nil {
				return err
			}
			if i.Usage == nil || !ok(u) {
				return fmt.Errorf("%+v", u)
			}
			return nil
		})
		return u
	}
	voids := func(u api.Usage) (all []string) {
		for _, h := range u.Hours {
			for _, v := range h.Voids {
				all = append(all, v.Role+" in "+v.Database+" by "+v.Application+" from "+v.Client)
			}
		}
		return all
	}
	before := usage("the hour is counted", func(u api.Usage) bool { return len(u.Hours) > 0 })
	if len(voids(before)) > 0 {
		t.Fatalf("nobody has worked there: %q", voids(before))
	}
	last := before.Hours[len(before.Hours)-1]
	if last.VCores != 8 || last.Role != "secondary" && last.Role != "standalone" || !last.Open {
		t.Errorf("%+v", last)
	}
	if n := pgtest.Query(t, login(`'Odd "reporter'`, "shop", "twinspan/shop/apply"), `SELECT count(*) FROM goods`)[0][0]; n != "1000" {
		t.Errorf("%v rows", n)
	}
	want := []string{`Odd "reporter in shop by twinspan/shop/apply from 127.0.0.1`}
	after := usage("the user is named", func(u api.Usage) bool { return len(voids(u)) > 0 })
	if got := voids(after); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	of := func(u api.Usage) (hours int) {
		for _, h := range u.Hours {
			if len(h.Voids) > 0 {
				hours++
				if h.State != "active" {
					t.Errorf("%+v", h)
				}
			}
		}
		return hours
	}
	if of(after) != 1 {
		t.Errorf("%d hours are void", of(after))
	}
	s.Kill()
	s.Start()
	pgtest.Query(t, login("late", "shop", "psql"), `SELECT 1`)
	want = append(want, "late in shop by psql from 127.0.0.1")
	again := usage("the agent counts again", func(u api.Usage) bool { return slices.Contains(voids(u), want[1]) })
	if got := voids(again); !slices.Equal(got, want) {
		t.Errorf("after a killed agent: %q", got)
	}
	if _, err := p.A.Client.Usage(t.Context(), ""); codeOf(err) != "instance_not_managed" {
		t.Errorf("of another's instance: %v", err)
	}
	if _, err := s.Client.Usage(t.Context(), "2026-13"); codeOf(err) != "month_invalid" {
		t.Errorf("of a month that there is not: %v", err)
	}
}
