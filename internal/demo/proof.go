package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// greeting is the row that is written on one side and read on the other.
const greeting = "hello from a"

// demonstrate writes a row on a and reads it on b, tries to write on b, and
// tells how to look at both.
func (d *demo) demonstrate(ctx context.Context) error {
	a, err := d.a.connect(ctx, database)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "connection_lost", "connect to a")
	}
	defer a.Close(context.WithoutCancel(ctx))
	b, err := d.b.connect(ctx, database)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "connection_lost", "connect to b")
	}
	defer b.Close(context.WithoutCancel(ctx))
	if _, err := a.Exec(ctx, "INSERT INTO greetings (id, text) VALUES (1, $1)", greeting); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "write on a")
	}
	written := time.Now()
	read := ""
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if err := b.QueryRow(ctx, "SELECT coalesce((SELECT text FROM greetings WHERE id = 1), '')").Scan(&read); err != nil {
			return problem.Wrap(err, problem.Internal, "demo_sql", "read on b")
		}
		if read != "" {
			break
		}
		if err := d.b.wait(ctx, tick.C); err != nil {
			return err
		}
	}
	d.stage.say("Written on a, read on b %s later: %q", terminal.Duration(time.Since(written).Seconds()), read)
	// Ordinary sessions there are read-only to begin with; the gate is what refuses
	// those that are not.
	if _, err := b.Exec(ctx, "SET default_transaction_read_only = off"); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "open the session on b for writing")
	}
	_, err = b.Exec(ctx, "INSERT INTO greetings (id, text) VALUES (2, 'hello from b')")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return problem.New(problem.Internal, "demo_written", "the secondary accepted a write (%v)", err)
	}
	d.stage.say("Written on b, refused there: %s", refused.Message)
	d.stage.guide(d.a, d.b)
	return nil
}

// caughtUp waits until b has applied all that a had written when it was called.
func (d *demo) caughtUp(ctx context.Context) error {
	primary, err := d.primary(ctx)
	if err != nil {
		return err
	}
	conn, err := primary.connect(ctx, database)
	if err != nil {
		return problem.Wrap(err, problem.Transient, "connection_lost", "connect to the primary")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var end lsn.LSN
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		return problem.Wrap(err, problem.Internal, "demo_sql", "read the position of the primary")
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := d.b.client.Link(ctx, linkName)
		if err != nil {
			return fmt.Errorf("look at the link: %w", err)
		}
		if applied, err := lsn.Parse(l.Position.Applied); err == nil && applied >= end {
			return nil
		}
		if len(l.Problems) > 0 && l.Phase == "broken" {
			return broken(l)
		}
		if err := d.b.wait(ctx, tick.C); err != nil {
			return err
		}
	}
}

// primary is the side that has the primary now: somebody may have had them change
// places.
func (d *demo) primary(ctx context.Context) (*side, error) {
	l, err := d.a.client.Link(ctx, linkName)
	if err != nil {
		return nil, fmt.Errorf("look at the link: %w", err)
	}
	if l.Role == api.Primary {
		return d.a, nil
	}
	return d.b, nil
}
