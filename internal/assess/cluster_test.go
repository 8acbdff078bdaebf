package assess_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A primary with a standby: what the check says depends on what the cluster does with
// slots.
func TestClusterOfThePrimary(t *testing.T) {
	for major, object := range map[int]string{15: "standbys", 17: "synchronized_standby_slots"} {
		s := pgtest.Start(t, pgtest.WithMajor(major))
		name := s.Database(t)
		clusterFinding := func() string {
			t.Helper()
			for _, f := range look(t, assess.Primary{DSN: parse(t, s.DSN(name)), DumpMajor: 99}).Findings {
				if f.Code == "cluster_failover" {
					return f.Object
				}
			}
			return ""
		}
		if got := clusterFinding(); got != "" {
			t.Errorf("%d alone: %s", major, got)
		}
		s.Standby(t, "standby")
		pgtest.Eventually(t, time.Minute, func() error {
			if rows := pgtest.Query(t, s.DSN("postgres"), `SELECT FROM pg_stat_replication WHERE state = 'streaming'`); len(rows) == 0 {
				return errors.New("no standby")
			}
			return nil
		})
		if got := clusterFinding(); got != object {
			t.Errorf("%d with a standby: %q, want %q", major, got, object)
		}
		conn, err := pgx.Connect(t.Context(), s.DSN("postgres")+"&application_name=Patroni")
		if err != nil {
			t.Fatal(err)
		}
		if got := clusterFinding(); got != "Patroni" {
			t.Errorf("%d with Patroni: %q", major, got)
		}
		conn.Close(t.Context())
		if major >= 17 {
			pgtest.Exec(t, s.DSN("postgres"), `ALTER SYSTEM SET synchronized_standby_slots = 'standby'`, `SELECT pg_reload_conf()`)
			pgtest.Eventually(t, time.Minute, func() error {
				if got := clusterFinding(); got != "" {
					return errors.New(got)
				}
				return nil
			})
		}
	}
}
