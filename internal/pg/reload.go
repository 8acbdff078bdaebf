package pg

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Applied is how settings of a configuration file stand in a running server.
type Applied struct {
	LoadedAt   time.Time // when the server last read its files, by its own clock
	Pending    []string  // those that differ from the files until the next start
	Overridden []string  // those that come from elsewhere than a file of the given name
}

// Settings asks a server how settings stand that a file of the given base name gives. It waits until the server has read its files
// later than after, as long as ctx lasts.
func (d *DSN) Settings(ctx context.Context, file string, names []string, after time.Time) (Applied, error) {
	for {
		a, err := d.settings(ctx, file, names)
		if err != nil || a.LoadedAt.After(after) {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, Classify(context.Cause(ctx), "wait until the server has read its settings")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// settings asks in a session of its own: what waits for a restart is told to sessions that begin later than the server
// has read its files.
func (d *DSN) settings(ctx context.Context, file string, names []string) (Applied, error) {
	var a Applied
	conn, err := d.Connect(ctx, Session{Name: "settings"})
	if err != nil {
		return a, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_conf_load_time()`).Scan(&a.LoadedAt); err != nil {
		return a, Classify(err, "ask the server when it read its settings")
	}
	rows, err := conn.Query(ctx, `SELECT name, pending_restart, NOT pending_restart AND sourcefile IS NOT NULL AND sourcefile !~ $2
		FROM pg_catalog.pg_settings WHERE name = ANY ($1)`, names, `/`+file+`$`)
	if err != nil {
		return a, Classify(err, "ask the server for its settings")
	}
	var name string
	var pending, other bool
	_, err = pgx.ForEachRow(rows, []any{&name, &pending, &other}, func() error {
		switch {
		case pending:
			a.Pending = append(a.Pending, name)
		case other:
			a.Overridden = append(a.Overridden, name)
		}
		return nil
	})
	slices.Sort(a.Pending)
	slices.Sort(a.Overridden)
	return a, Classify(err, "ask the server for its settings")
}
