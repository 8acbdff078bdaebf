package test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/tier"
)

// codeOf returns the code of an agent's refusal.
func codeOf(err error) string {
	var sent *api.Error
	if errors.As(err, &sent) {
		return sent.Code
	}
	return fmt.Sprint(err)
}

func TestInstanceHasASize(t *testing.T) {
	t.Parallel()
	s := linktest.Managed(t, "m", func(c *config.Config) { c.Postgres.NoBackups = true })
	show := func() api.Instance {
		t.Helper()
		i, err := s.Client.Instance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	values := func(names ...string) string {
		t.Helper()
		var all []string
		for _, name := range names {
			all = append(all, fmt.Sprint(pgtest.Query(t, s.DSN("postgres"), `SELECT current_setting('`+name+`')`)[0][0]))
		}
		return strings.Join(all, " ")
	}
	await := func(what string, ok func(api.Instance) bool) {
		t.Helper()
		pgtest.Await(t, linktest.Patience, what, func() error {
			if i := show(); !ok(i) {
				return fmt.Errorf("%+v %+v %+v", i.Size, i.Enforcement, i.Storage)
			}
			return nil
		})
	}
	await("the instance is looked at", func(i api.Instance) bool {
		return i.Size.Tier == tier.GeneralPurpose && i.Size.VCores == 0 && !i.Enforcement.Settings && i.Enforcement.Known && i.Storage != nil && i.Storage.UsedBytes > 20<<20 &&
			i.Storage.FreeBytes == i.Storage.FileSystem && i.Storage.FullAt == nil && i.Encryption != nil && i.Roles == api.InstanceRoles{Known: true}
	})
	unsized := values("shared_buffers", "max_connections")
	set := func(in api.SetInstance) api.InstanceChange {
		t.Helper()
		done, err := s.Client.SetInstance(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	pid := linktest.Postmaster(s.Dir.Instance() + "/data")
	size := api.SetInstance{VCores: new(2), MemoryBytes: new(int64(8 << 30)), StorageBytes: new(int64(10 << 30))}
	done := set(size)
	want := []string{"max_connections", "max_worker_processes", "shared_buffers"}
	if !slices.Equal(done.Pending, want) || done.Restarted || done.Size.Tier != tier.GeneralPurpose || done.Limits == "" {
		t.Errorf("%+v", done)
	}
	if got := values("work_mem", "max_wal_size", "shared_buffers", "max_connections"); got != "7691kB 512MB "+unsized || linktest.Postmaster(s.Dir.Instance()+"/data") != pid {
		t.Errorf("before the restart: %s", got)
	}
	i := show()
	if codes := codesOf(i.Problems); !slices.Equal(codes, []string{"instance_restart_pending"}) || i.Enforcement.Limits || i.Enforcement.Why == "" {
		t.Errorf("%v %+v", codes, i.Enforcement)
	}
	if done = set(api.SetInstance{Restart: true}); !done.Restarted || len(done.Pending) > 0 {
		t.Errorf("%+v", done)
	}
	if got := values("shared_buffers", "max_connections", "max_worker_processes"); got != "2GB 409 10" {
		t.Errorf("after the restart: %s", got)
	}
	pid = linktest.Postmaster(s.Dir.Instance() + "/data")
	if done = set(api.SetInstance{Restart: true}); done.Restarted || linktest.Postmaster(s.Dir.Instance()+"/data") != pid {
		t.Error("a server with which nothing waits for a restart was restarted")
	}
	// What somebody sets otherwise is told.
	pgtest.Exec(t, s.DSN("postgres"), `ALTER SYSTEM SET work_mem = '9MB'`)
	pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_reload_conf()`)
	pgtest.Await(t, linktest.Patience, "the overridden setting is named", func() error {
		set(api.SetInstance{Benefit: new(tier.NoBenefit)}) // which looks at once
		if e := show().Enforcement; !slices.Equal(e.Overridden, []string{"work_mem"}) || !slices.Contains(codesOf(show().Problems), "instance_setting_overridden") {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	for code, in := range map[string]api.SetInstance{
		"tier_unavailable":  {Tier: new(tier.BusinessCritical)},
		"tier_unknown":      {Tier: new("gold")},
		"storage_below_use": {StorageBytes: new(int64(256 << 20))},
	} {
		if code == "storage_below_use" { // more than that
			pgtest.Exec(t, s.DSN("postgres"), `CREATE TABLE big AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 250000)`)
		}
		if _, err := s.Client.SetInstance(t.Context(), in); codeOf(err) != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	// Everything is kept across a killed agent, and its server is taken over as it is.
	s.Kill()
	s.Start()
	if got := show().Size; got.VCores != 2 || got.MemoryBytes != 8<<30 || got.StorageBytes != 10<<30 || linktest.Postmaster(s.Dir.Instance()+"/data") != pid {
		t.Errorf("after a restart of the agent: %+v", got)
	}
	text, err := os.ReadFile(s.Dir.Size())
	if err != nil || !strings.Contains(string(text), `"vcores": 2`) {
		t.Errorf("%s, %v", text, err)
	}
	// An instance that somebody else runs has no size; what is known of it is shown.
	p := linktest.New(t, linktest.Options{})
	other := p.A.Client
	if _, err := other.SetInstance(t.Context(), size); codeOf(err) != "instance_not_managed" {
		t.Errorf("of another's instance: %v", err)
	}
	pgtest.Await(t, linktest.Patience, "another's instance is looked at", func() error {
		i, err := other.Instance(t.Context())
		if err == nil && (i.Size != nil || i.Storage != nil || i.Encryption == nil || !i.Roles.Known) {
			err = fmt.Errorf("%+v", i)
		}
		return err
	})
	// What does not fit is refused, by a check and before a link is made, with both sizes.
	for range 2 { // so that no log is removed later
		pgtest.Exec(t, s.DSN("postgres"), `CHECKPOINT`)
	}
	set(api.SetInstance{Benefit: new(tier.NoBenefit)})
	used := show().Storage.UsedBytes
	set(api.SetInstance{StorageBytes: new(used + 8<<20)})
	await("the storage has little left", func(i api.Instance) bool { return slices.Contains(codesOf(i.Problems), "storage_full") })
	p.A.Pair(t, s)
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE shop`)
	pgtest.Exec(t, p.A.Server.DSN("shop"), `CREATE TABLE goods AS SELECT i, repeat('x', 1000) AS t FROM generate_series(1, 20000) i`)
	check, err := other.Check(t.Context(), api.CheckRequest{Database: "shop", Peer: "m"})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(check.Findings, func(f api.Finding) bool { return f.Code == "storage_exceeded" })
	if at < 0 || !strings.Contains(check.Findings[at].Why, " MB left of its storage of ") || check.Findings[at].Severity != api.Blocks {
		t.Errorf("%+v", check.Findings)
	}
	if _, err := other.CreateLink(t.Context(), api.CreateLink{Name: "shop", Database: "shop", Peer: "m"}); codeOf(err) != "storage_exceeded" {
		t.Errorf("the link: %v", err)
	}
}
