//go:build ha

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// The members of an instance are restarted one after the other with the minor release that is installed on their hosts, under load: nothing acknowledged is
// lost, the link goes on, and another member leads afterwards.
func TestMembersUpdate(t *testing.T) {
	programs := pgtest.NewPrograms(t, "pg_basebackup", "pg_rewind", "pg_controldata")
	if programs == nil {
		return
	}
	m := openMembersWith(t, programs.Env())
	m.awaitSlots()
	leader := m.group.Leader()
	older, newer := programs.Older.String(), programs.Newer.String()
	if done, err := leader.Client.UpdateInstance(t.Context()); err != nil || len(done.Servers) != 0 || done.Release != older {
		t.Fatalf("with nothing newer: %+v, %v", done, err)
	}
	programs.Upgrade(t)
	pgtest.Await(t, linktest.Patience, "the members tell what is installed", func() error {
		view, err := leader.View()
		if err != nil {
			return err
		}
		for _, one := range view.Members {
			if one.Installed != newer || one.Version != older || !slices.ContainsFunc(view.Problems, func(p api.Problem) bool {
				return p.Code == "instance_update_pending" && strings.Contains(p.Title, one.Name)
			}) {
				return fmt.Errorf("%+v, %+v", one, view.Problems)
			}
		}
		return nil
	})
	for _, one := range m.group.Members {
		if one != leader {
			if _, err := one.Client.UpdateInstance(t.Context()); codeOf(err) != "member_stands_by" {
				t.Errorf("a member that stands by updates: %v", err)
			}
		}
	}
	before := m.bank.transfers.Load()
	done, err := leader.Client.UpdateInstance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, %d transfers meanwhile", done, m.bank.transfers.Load()-before)
	if len(done.Servers) != 3 || done.Release != newer || !done.Servers[2].Led || done.Servers[2].Member != leader.Called() || done.Servers[0].Led || done.Servers[1].Led {
		t.Errorf("%+v", done)
	}
	for _, one := range m.group.Members {
		if got := pgtest.Query(t, one.DSN("postgres"), `SELECT split_part(current_setting('server_version'), ' ', 1)`)[0][0]; got != newer {
			t.Errorf("%s runs %s", one.Called(), got)
		}
	}
	m.group.AwaitWhole()
	if m.group.Leader() == leader {
		t.Error("the former leader leads")
	}
	m.awaitReplicating()
	m.bank.waitTransfers(100)
	m.finish()
}
