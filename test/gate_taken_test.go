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

// What a superuser takes away of a twin's gate is made again and is a problem of the link, until a verification has found
// both sides equal.
func TestGateThatIsTakenAwayIsShutAgain(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.AppDSN("sales"), `CREATE SCHEMA own`, `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	shows := func() (bool, error) {
		l, err := p.B.Client.Link(t.Context(), "sales")
		return slices.ContainsFunc(l.Problems, func(q api.Problem) bool {
			return q.Code == "gate_taken_away" && strings.Contains(q.Hint, "--repair")
		}), err
	}
	for _, taken := range []string{`ALTER TABLE public.t DISABLE TRIGGER twinspan_gate`, `CREATE OR REPLACE FUNCTION twinspan.refuse(what text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'`, `DROP EVENT TRIGGER twinspan_gate`, `ALTER DATABASE sales RESET default_transaction_read_only`} {
		tamper(t, p.B, "sales", taken)
		pgtest.Eventually(t, linktest.Patience, func() error {
			if told, err := shows(); err != nil || !told {
				return fmt.Errorf("nothing is said of: %s; %v", taken, err)
			}
			// Before the gate is shut again, they are let through: a row is repaired, a table must not stay.
			for _, sql := range []string{`INSERT INTO t VALUES (2)`, `DO $$ BEGIN CREATE TABLE own.made (); RAISE 'made'; END $$`} {
				if _, err := pgtest.Try(t.Context(), p.B.Server.AppDSN("sales")+"&default_transaction_read_only=off", sql); !refused(err) {
					return fmt.Errorf("after %s the twin takes %s: %v", taken, sql, err)
				}
			}
			return nil
		})
		if v := verify(t, p.B.Client, "sales", api.Verify{Repair: true}); v.State != api.Equal && v.State != api.Repaired {
			t.Errorf("verify says %s: %+v", v.State, v.Problem)
		}
		pgtest.Eventually(t, linktest.Patience, func() error {
			if told, err := shows(); err != nil || told {
				return fmt.Errorf("still said after a verification: %v", err)
			}
			return nil
		})
	}
}
