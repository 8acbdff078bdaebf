package dbcopy

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
)

// check refuses what cannot be copied to the server, before anything is made.
func (t *Target) check(ctx context.Context, origin Origin) error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	conn, err := t.Server.Connect(ctx, pg.Session{Name: session + "/check"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var version int
	var super, recovering, there bool
	var user string
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_user, (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), pg_is_in_recovery(),
		EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)`, t.Name).Scan(&version, &user, &super, &recovering, &there)
	if err != nil {
		return pg.Classify(err, "look at the server that is to hold the copy")
	}
	switch {
	case version/10000 < assess.OldestSecondary:
		return problem.New(problem.Incompatible, "version_unsupported", "the server that is to hold the copy has PostgreSQL %d, and copies are made on %d and newer", version/10000, assess.OldestSecondary).On("server")
	case recovering:
		return problem.New(problem.Incompatible, "secondary_in_recovery", "the server that is to hold the copy is a standby and cannot be written to").On("server")
	case !super:
		return problem.New(problem.Unauthorised, "not_superuser", "the agent's role may not do what a copy needs on the server").On(user).WithHint("ALTER ROLE ... SUPERUSER; for that role")
	case there:
		return exists(t.Name)
	}
	if err := missingExtensions(ctx, conn, origin.Extensions); err != nil {
		return err
	}
	return assess.Room(ctx, conn, t.Server, t.storage(), origin.Bytes)
}

// storage is what bounds the copy beside the disk.
func (t *Target) storage() *assess.Storage {
	if t.Storage == nil {
		return nil
	}
	return t.Storage()
}

// CheckName refuses names that a copy cannot have.
func CheckName(name string) error {
	invalid := func(why string) error {
		return problem.New(problem.Invalid, "database_name_invalid", "a copy cannot have the name %q: %s", name, why).On(name).WithHint("choose another name for the copy")
	}
	switch {
	case name == "":
		return invalid("it is empty")
	case len(name) > 63:
		return invalid("it is longer than 63 bytes")
	case strings.ContainsAny(name, "\x00\n\r"):
		return invalid("it has a line's end in it")
	case IsDraft(name):
		return invalid("unfinished copies have such names")
	}
	return nil
}

func missingExtensions(ctx context.Context, conn *pgx.Conn, wanted []assess.Extension) error {
	names := make([]string, len(wanted))
	for i, e := range wanted {
		names[i] = e.Name
	}
	missing, err := schema.MissingExtensions(ctx, conn, names)
	if err != nil || len(missing) == 0 {
		return err
	}
	return problem.New(problem.Incompatible, "extension_missing", "the server that is to hold the copy does not have %s, which the database uses", strings.Join(missing, ", ")).
		On(missing[0]).WithHint("install the extension's package on that server's machine")
}
