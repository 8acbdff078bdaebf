package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A removal that waits for somebody's lock says meanwhile who that is, and goes on.
func TestDeleteSaysWhomItWaitsFor(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE keyless (i int)`) // whose identity is brought back
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)

	conn := pgtest.Conn(t, a)
	if _, err := conn.Exec(t.Context(), `BEGIN; INSERT INTO keyless VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	deleted := make(chan error, 1)
	go func() {
		_, err := p.A.Client.DeleteLink(t.Context(), "sales", false)
		deleted <- err
	}()
	pid := fmt.Sprintf("server process %d", conn.PgConn().PID())
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), "sales")
		if err == nil && !slices.ContainsFunc(l.Problems, func(q api.Problem) bool {
			return q.Code == "lock_not_available" && strings.Contains(q.Title, pid) && strings.Contains(q.Hint, "pg_terminate_backend")
		}) {
			err = fmt.Errorf("it does not say that it waits for %s: %+v", pid, l.Problems)
		}
		return err
	})
	conn.Close(context.Background())
	if err := <-deleted; err != nil {
		t.Error(err)
	}
}
