package test

import (
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// What interrupted a link is shown as long as it does, and no longer, also where the link was in the same phase all the time.
func TestInterruptionThatIsOverIsForgotten(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.DSN("sales"), `CREATE TABLE public.t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	for i, s := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			pgtest.Exec(t, s.Server.DSN("postgres"), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^twinspan/' AND pid <> pg_backend_pid()`)
			l, err := p.B.Client.Link(t.Context(), "sales")
			if err != nil || len(l.Problems) == 0 {
				return fmt.Errorf("nothing is interrupted: %+v, %v", l.Problems, err)
			}
			return nil
		})
		pgtest.Exec(t, p.A.Server.DSN("sales"), fmt.Sprintf(`INSERT INTO public.t VALUES (%d)`, i))
		p.WaitApplied(t, "sales", "sales")
		for _, side := range []*linktest.Side{p.A, p.B} {
			pgtest.Eventually(t, linktest.Patience, func() error {
				if l, err := side.Client.Link(t.Context(), "sales"); err != nil || l.Phase != api.Replicating || len(l.Problems) > 0 {
					return fmt.Errorf("agent %s says %s: %+v, %v", side.Name, l.Phase, l.Problems, err)
				}
				return nil
			})
		}
	}
}
