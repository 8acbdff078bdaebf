package test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// both names the two sides' servers in one connection string, the given one first.
func both(first, second *linktest.Side, database, attributes string) string {
	return pgtest.DSNOfBoth(first.Server, second.Server, database) + "&target_session_attrs=" + attributes
}

// portOf returns the port of the server that a driver of Go's and libpq choose.
func portOf(t *testing.T, psql, dsn string) (string, error) {
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.Background())
	var port string
	if err := conn.QueryRow(t.Context(), `SELECT current_setting('port')`).Scan(&port); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(t.Context(), psql, "-X", "-A", "-t", "-c", `SELECT current_setting('port')`, dsn).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out)
	}
	if by := strings.TrimSpace(string(out)); by != port {
		return "", fmt.Errorf("libpq chooses port %s, pgx %s", by, port)
	}
	return port, nil
}

// Drivers that know both hosts find the side that they ask for: before a failover,
// after it, and while it is under way never one that is not of the kind.
func TestDriversFindTheirSide(t *testing.T) {
	t.Parallel()
	psql, _, err := instance.FindClient("psql", 0)
	if err != nil {
		t.Fatal(err)
	}
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "bank")
	pgtest.Exec(t, p.A.Server.AppDSN("bank"), `CREATE TABLE ledger (id bigint PRIMARY KEY)`)
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)

	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for written := int64(0); ; {
			select {
			case <-stop:
				return
			default:
			}
			// Whoever is sent to a side as read-write can write there, or is refused because
			// the sides change places at that moment; a reader can always read.
			conn, err := pgx.Connect(context.Background(), both(p.A, p.B, "bank", "read-write"))
			if err == nil {
				written++
				_, err = conn.Exec(context.Background(), `INSERT INTO ledger VALUES ($1)`, written)
				conn.Close(context.Background())
			}
			if err != nil && !refused(err) && !strings.Contains(err.Error(), "read") {
				t.Errorf("a writer: %v", err)
			}
			if conn, err = pgx.Connect(context.Background(), both(p.A, p.B, "bank", "any")); err != nil {
				t.Errorf("a reader: %v", err)
				continue
			}
			if _, err := conn.Exec(context.Background(), `SELECT count(*) FROM ledger`); err != nil {
				t.Errorf("a reader: %v", err)
			}
			conn.Close(context.Background())
		}
	})
	for round := range 3 {
		primary, secondary := primaryOf(t, p, "bank")
		for attributes, want := range map[string]*linktest.Side{"read-write": primary, "read-only": secondary} {
			for _, dsn := range []string{both(p.A, p.B, "bank", attributes), both(p.B, p.A, "bank", attributes)} {
				pgtest.Eventually(t, linktest.Patience, func() error {
					port, err := portOf(t, psql, dsn)
					if err == nil && port != fmt.Sprint(want.Server.Port) {
						err = fmt.Errorf("round %d: %s leads to port %s, want %d", round, attributes, port, want.Server.Port)
					}
					return err
				})
			}
		}
		if round == 2 {
			break
		}
		if f := failOver(t, primary, "bank", api.FailoverRequest{}); f.State != api.FailoverDone {
			t.Fatalf("%+v", f)
		}
		p.WaitPhase(t, "bank", api.Replicating)
	}
	close(stop)
	looking.Wait()
	waitEqual(t, p, "bank", "bank")
}
