package test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A managed instance is restarted with the minor release that a package has put beside it, when its operator says so and not before. Its link goes on.
func TestInstanceUpdate(t *testing.T) {
	t.Parallel()
	programs := pgtest.NewPrograms(t)
	if programs == nil {
		return
	}
	s := linktest.ManagedWith(t, "m", programs.Env(), func(c *config.Config) { c.Postgres.NoBackups = true })
	show := func() api.Instance {
		t.Helper()
		i, err := s.Client.Instance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	await := func(what string, ok func(api.Instance) bool) {
		t.Helper()
		pgtest.Await(t, linktest.Patience, what, func() error {
			if i := show(); !ok(i) {
				return fmt.Errorf("installed %q, version %q, problems %+v", i.Installed, i.Postgres.Version, i.Problems)
			}
			return nil
		})
	}
	update := func() api.InstanceUpdate {
		t.Helper()
		done, err := s.Client.UpdateInstance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	postmaster := func() int { return linktest.Postmaster(filepath.Join(s.Dir.Instance(), "data")) }
	runs := func() string {
		t.Helper()
		return pgtest.Query(t, s.DSN("postgres"), `SELECT split_part(current_setting('server_version'), ' ', 1)`)[0][0]
	}
	older, newer := programs.Older.String(), programs.Newer.String()
	await("the release is known", func(i api.Instance) bool { return i.Installed == older && len(i.Problems) == 0 })
	pid := postmaster()
	if done := update(); done.Release != older || len(done.Servers) != 0 || postmaster() != pid {
		t.Errorf("with nothing newer: %+v", done)
	}

	p := linktest.New(t, linktest.Options{})
	link := &linktest.Pair{A: s, B: p.A}
	s.Pair(t, p.A)
	pgtest.Exec(t, s.DSN("postgres"), `CREATE DATABASE shop`)
	pgtest.Exec(t, s.DSN("shop"), `CREATE TABLE goods AS SELECT i AS id, repeat('x', 100) AS t FROM generate_series(1, 1000) i`, `ALTER TABLE goods ADD PRIMARY KEY (id)`)
	if _, err := s.Client.CreateLink(t.Context(), api.CreateLink{Name: "shop", Database: "shop", Peer: p.A.Name}); err != nil {
		t.Fatal(err)
	}
	link.WaitPhase(t, "shop", api.Replicating)

	programs.Upgrade(t)
	// The look comes every half a minute; who asks for the update does not wait for it.
	done := update()
	if len(done.Servers) != 1 || done.Release != newer || done.Servers[0].From != older || done.Servers[0].To != newer || !done.Servers[0].Led || done.Servers[0].Seconds <= 0 {
		t.Errorf("%+v", done)
	}
	if got := runs(); got != newer || postmaster() == pid {
		t.Errorf("the server runs %s, process %d, before %d", got, postmaster(), pid)
	}
	await("the new release is shown", func(i api.Instance) bool {
		release, _, _ := strings.Cut(i.Postgres.Version, " ")
		return i.Installed == newer && release == newer && !slices.Contains(codesOf(i.Problems), "instance_update_pending")
	})
	pgtest.Exec(t, s.DSN("shop"), `INSERT INTO goods SELECT i, 'after' FROM generate_series(1001, 1100) i`)
	link.WaitPhase(t, "shop", api.Replicating)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := pgtest.Query(t, p.A.Server.DSN("shop"), `SELECT count(*)::text FROM goods WHERE t = 'after'`)[0][0]; n != "100" {
			return fmt.Errorf("%s rows", n)
		}
		return nil
	})
	pgtest.Equal(t, s.DSN("shop"), p.A.Server.DSN("shop"))
	// Who runs the server of the other side has to update it himself.
	if _, err := p.A.Client.UpdateInstance(t.Context()); codeOf(err) != "instance_not_managed" {
		t.Errorf("of another's instance: %v", err)
	}
}
