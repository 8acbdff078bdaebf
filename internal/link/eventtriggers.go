package link

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// eventTriggerOfRole is what a primary's operator agrees to: that an event trigger runs the function of a
// role that is no superuser, at the agent's commands, too.
const eventTriggerOfRole = "event_trigger_of_role"

// triggerOfRole is such an event trigger, and the role.
type triggerOfRole struct{ name, owner string }

// code is how the agreement to it is stored.
func (t triggerOfRole) code() string { return eventTriggerOfRole + " " + t.name + " " + t.owner }

func triggersOfRoles(ctx context.Context, conn *pgx.Conn) ([]triggerOfRole, error) {
	rows, err := conn.Query(ctx, `SELECT e.evtname::text, o.rolname::text FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
		WHERE e.evtenabled <> 'D' AND NOT o.rolsuper AND p.pronamespace IS DISTINCT FROM pg_catalog.to_regnamespace('twinspan') ORDER BY 1`)
	if err != nil {
		return nil, pg.Classify(err, "look for event triggers of roles")
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t triggerOfRole, err error) {
		return t, row.Scan(&t.name, &t.owner)
	})
	return list, pg.Classify(err, "look for event triggers of roles")
}

// eventTriggersAgreed sees that every event trigger of a role was agreed to. One that was made since the link was, or
// was given to a role since, is a problem for as long as it is there.
func eventTriggersAgreed(ctx context.Context, conn *pgx.Conn, r catalog.Link) (*problem.Error, error) {
	list, err := triggersOfRoles(ctx, conn)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	agreed, err := catalog.Consents(ctx, conn, r.ID)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(t triggerOfRole) bool { return slices.Contains(agreed, t.code()) })
	if len(list) == 0 {
		return nil, nil
	}
	var names, owners []string
	for _, t := range list {
		names = append(names, sqlname.Quote(t.name))
		if owner := sqlname.Quote(t.owner); !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	return problem.New(problem.Conflict, eventTriggerOfRole, "an event trigger runs a function of a role that is no superuser (%s), with the rights of whoever changes the schema, superusers and agents among them: %s",
		strings.Join(owners, ", "), strings.Join(names, ", ")).On(names[0]).
		WithHint(`drop it, or give its function to a superuser: ALTER FUNCTION ... OWNER TO ...; whoever trusts that role as a superuser of both servers says so: twinspan link set %s --accept %s`, r.Name, eventTriggerOfRole), nil
}

// AgreeToEventTriggers stores that the event triggers of roles that the primary has now were agreed to.
func (l *Link) AgreeToEventTriggers(ctx context.Context) error {
	r := l.side.Record()
	return l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		list, err := triggersOfRoles(ctx, conn)
		if err != nil {
			return err
		}
		for _, t := range list {
			if err := catalog.SetConsent(ctx, conn, r.ID, t.code(), true); err != nil {
				return err
			}
			l.log.Info("agreement changed", "code", eventTriggerOfRole, "trigger", t.name, "role", t.owner, "given", true)
		}
		return nil
	})
}
