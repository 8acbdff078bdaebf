package dbroles

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// MethodMake asks the secondary's agent to make these roles, before the link is made.
const MethodMake = "link.roles"

// MakeRequest asks the secondary's instance for roles. They may carry what a
// server keeps of passwords.
type MakeRequest struct {
	Name     string    `json:"name"`     // of the link that will be
	Database string    `json:"database"` // of the twin that will be; earlier releases do not say
	Roles    []pg.Role `json:"roles"`
}

// MakeResponse tells which were made.
type MakeResponse struct {
	Notices []catalog.Notice `json:"notices"`
}

// Make makes the roles that the instance lacks, and tells of each.
func Make(ctx context.Context, server *pg.DSN, request MakeRequest) (MakeResponse, error) {
	made, err := schema.CreateRoles(ctx, server, request.Name, request.Roles)
	if err != nil {
		return MakeResponse{}, err
	}
	var response MakeResponse
	for _, r := range made {
		response.Notices = append(response.Notices, catalog.Notice{At: time.Now().UTC(), Code: "role_created", Subject: r.Name, Text: describe(r)})
	}
	return response, nil
}

func describe(r schema.CreatedRole) string {
	text := "the role " + sqlname.Quote(r.Name) + " was missing on the secondary and was created as the primary has it"
	switch {
	case r.Password:
		text += ", with its password"
	case r.Login:
		text += ", without a password"
	}
	if len(r.Left) > 0 {
		text += "; not carried: " + strings.Join(r.Left, ", ")
	}
	return text
}

// Created is the notice of a role that was made for what it owns or is granted.
func Created(name string) catalog.Notice {
	return catalog.Notice{At: time.Now().UTC(), Code: "role_created", Subject: name,
		Text: "the role " + sqlname.Quote(name) + " was missing on the secondary and was created NOLOGIN, for it owns or is granted something"}
}

// NoteMade tells the owner of the link which roles it made.
func (k *Keeper) NoteMade(ctx context.Context, made []string) error {
	r := k.side.Record()
	var notices []catalog.Notice
	for _, name := range made {
		if !slices.ContainsFunc(r.Notices, func(n catalog.Notice) bool { return n.Code == "role_created" && n.Subject == name }) {
			notices = append(notices, Created(name))
		}
	}
	return k.side.Note(ctx, notices)
}

// Ensure makes the roles that are missing, and tells the link's owner. It works
// outside of what is applied: another link, or another agent, may do the same now.
func (k *Keeper) Ensure(ctx context.Context, names []string) error {
	var missing, made []string
	err := k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT w FROM unnest($1::text[]) w WHERE w NOT IN (SELECT rolname FROM pg_catalog.pg_roles)`, names)
		if err != nil {
			return pg.Classify(err, "look for roles")
		}
		missing, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return pg.Classify(err, "look for roles")
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	// Those that they are members of are roles that a command may be made by.
	if answer, err := k.rightsThere(ctx, missing); err == nil {
		for _, r := range answer.Roles {
			if !r.Superuser && !slices.Contains(missing, r.Name) {
				missing = append(missing, r.Name)
			}
		}
	}
	k.instance.Lock.Lock()
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, name := range missing {
			var have bool
			if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)`, name).Scan(&have); err != nil {
				return pg.Classify(err, "look for roles")
			}
			if have {
				continue
			}
			switch _, err := conn.Exec(ctx, `CREATE ROLE `+sqlname.Quote(name)+` NOLOGIN`); pg.SQLState(err) {
			case "":
				if err != nil {
					return pg.Classify(err, "create the role "+name)
				}
				made = append(made, name)
			case "42710", "23505": // by somebody else, just now
			default:
				return pg.Classify(err, "create the role "+name)
			}
		}
		return nil
	})
	k.instance.Lock.Unlock()
	if err != nil || len(made) == 0 {
		return err
	}
	if err := k.NoteMade(ctx, made); err != nil {
		return err
	}
	if err := k.Compare(ctx, made); err != nil {
		k.side.Log.Debug("roles cannot be compared", "err", err)
	}
	return nil
}
