package dbroles

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// SuperuserCommands is what the twin's operator agrees to: that what superusers of the
// primary did, who are none here, is done with the agent's rights.
const SuperuserCommands = "superuser_commands"

// Lends says whether a change is made with the agent's rights: its role is a superuser
// on the primary and none here, and the twin's operator agreed.
func (k *Keeper) Lends(ctx context.Context, change *ddl.Change) (bool, error) {
	agreed, err := k.side.Agreed(ctx, SuperuserCommands)
	if err != nil || !agreed {
		return false, err
	}
	var super bool
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = $1), false)`, string(change.Role)).Scan(&super)
		return pg.Classify(err, "look for a role")
	})
	if err != nil || super {
		return false, err
	}
	return k.wasSuperuser(ctx, change, string(change.Role))
}

// wasSuperuser says whether a role is a superuser of the primary, the role of a change whether it
// was one when it made that.
func (k *Keeper) wasSuperuser(ctx context.Context, change *ddl.Change, name string) (bool, error) {
	if change.Superuser != nil && name == string(change.Role) {
		return *change.Superuser, nil
	}
	return k.superuserThere(ctx, name)
}

// superuserThere says whether a role is a superuser of the primary.
func (k *Keeper) superuserThere(ctx context.Context, name string) (bool, error) {
	answer, err := k.rightsThere(ctx, []string{name})
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if r, known := k.there[name]; known {
			return r.Superuser, nil
		}
		if problem.Retry(err) {
			return false, err
		}
		return false, nil // a release that does not tell
	}
	r := pg.RoleIn(answer.Roles, name)
	return r != nil && r.Superuser, nil
}

// MayOwn says whether a role, which is made where the twin lacks it, may own what it owns on
// the primary.
func (k *Keeper) MayOwn(ctx context.Context, conn *pgx.Conn, owner string) (bool, error) {
	if err := k.Ensure(ctx, []string{owner}); err != nil {
		return false, err
	}
	here, err := pg.RolesNamed(ctx, conn, []string{owner})
	if err != nil {
		return false, err
	}
	r := pg.RoleIn(here, owner)
	if r == nil || !r.Superuser {
		return r != nil, nil
	}
	return k.superuserThere(ctx, owner)
}
