// Package uncarried says what neither PostgreSQL nor the link carries to the other side: jobs,
// settings of the server, foreign servers, publications and slots of others, and what else
// somebody has to set up again where the primary is to be (docs/design/0031-events.md). A secondary
// looks time and again what its primary has and keeps that in its database, for the time when the
// primary cannot be asked.
package uncarried

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods about what is not carried.
const (
	MethodInventory = "uncarried.read" // what do you have, as the primary?
	MethodShow      = "uncarried.show" // what does your side lack?
)

// Inventory is the primary's answer.
type Inventory struct {
	Inventory assess.Inventory `json:"inventory"`
}

const (
	// interval is how often a secondary looks what its primary has, for the time when
	// that cannot be asked any more.
	interval = time.Minute
	// patience bounds one look, askPatience one for which somebody waits: perhaps with
	// a failover, and the other side may be what has failed.
	patience    = 20 * time.Second
	askPatience = 3 * time.Second
)

// Keeper keeps what the primary has that is not carried. It works on both sides: the
// secondary asks and keeps, the primary answers. It has no state of its own beside the database.
type Keeper struct {
	side   *side.Side
	agent  string  // the name of the agent beside the side's server
	server *pg.DSN // through its maintenance database
}

// New returns the keeper of a side.
func New(s *side.Side, agent string, server *pg.DSN) *Keeper { return &Keeper{s, agent, server} }

// HandleInventory tells the secondary what this side has as the primary.
func (k *Keeper) HandleInventory(ctx context.Context, r side.Reference) (Inventory, error) {
	if role.Role(k.side.Record().Role) != role.Primary {
		return Inventory{}, problem.New(problem.Conflict, "not_primary", "this side is not the primary of the link").On(k.side.Name())
	}
	if err := k.side.SameEpoch(r); err != nil {
		return Inventory{}, err
	}
	i, err := k.inventory(ctx)
	return Inventory{i}, err
}

// inventory reads what this side has.
func (k *Keeper) inventory(ctx context.Context) (out assess.Inventory, err error) {
	cron := ""
	err = k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if out, err = assess.ReadInventory(ctx, conn); err != nil {
			return err
		}
		if cron, err = assess.CronDatabase(ctx, conn); err != nil {
			return err
		}
		// What is kept here is all of the database that moves, wherever it runs.
		out.Jobs, err = assess.ReadJobs(ctx, conn, "")
		return err
	})
	if err != nil || cron == "" || cron == k.side.Database {
		return out, err
	}
	conn, err := k.server.WithDatabase(cron).Connect(ctx, pg.Session{Name: k.side.Name() + "/jobs"})
	if err != nil {
		if pg.IsUnknownDatabase(err) {
			return out, nil
		}
		return out, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	jobs, err := assess.ReadJobs(ctx, conn, k.side.Database)
	out.Jobs = append(out.Jobs, jobs...)
	return out, err
}

// Run keeps in the twin's database what the primary has.
func (k *Keeper) Run(ctx context.Context) {
	k.side.WhileFollowing(ctx, interval, func(r catalog.Link) {
		// A primary of an older release, or one that is away, does not answer.
		if _, err := k.askInventory(ctx, r); err != nil && ctx.Err() == nil {
			k.side.Log.Debug("it is not known what the primary has beside the link", "err", err)
		}
	})
}

// askInventory asks the primary, and keeps the answer.
func (k *Keeper) askInventory(ctx context.Context, r catalog.Link) (catalog.Former, error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	answer, err := side.Call[Inventory](ctx, k.side, MethodInventory, side.ReferenceOf(r))
	if err != nil {
		return catalog.Former{}, err
	}
	text, err := json.Marshal(answer.Inventory)
	if err != nil {
		return catalog.Former{}, err
	}
	f := catalog.Former{Agent: r.Peer, At: time.Now().UTC(), Inventory: text}
	return f, k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return catalog.StoreFormer(ctx, conn, r.ID, f) })
}

// lacks says what this side lacks of what the other has, or had when it was last looked at.
// A primary that was never a secondary lacks nothing, which is nil.
func (k *Keeper) lacks(ctx context.Context) (*api.UncarriedSide, error) {
	r := k.side.Record()
	out := &api.UncarriedSide{Agent: k.agent, Role: api.Role(r.Role), From: r.Peer, Objects: []api.UncarriedObject{}}
	var f *catalog.Former
	if role.Role(r.Role) == role.Secondary && r.Seeded && !r.Diverged {
		asking, stop := context.WithTimeout(ctx, askPatience)
		fresh, err := k.askInventory(asking, r)
		stop()
		if err == nil {
			f = &fresh
		} else {
			out.Problem = side.ProblemOf(problem.As(err), api.Warns)
		}
	}
	if f == nil {
		err := k.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			f, err = catalog.GetFormer(ctx, conn, r.ID)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if f == nil {
		if role.Role(r.Role) == role.Primary {
			return nil, nil
		}
		return out, nil
	}
	var there assess.Inventory
	if err := json.Unmarshal(f.Inventory, &there); err != nil {
		return nil, problem.Wrap(err, problem.Internal, "internal", "read what is not carried")
	}
	here, err := k.inventory(ctx)
	if err != nil {
		return nil, err
	}
	at := f.At.UTC()
	out.From, out.AsOf, out.Objects = f.Agent, &at, assess.Uncarried(there, here)
	return out, nil
}

// LacksOrWhy says what this side lacks of what the other has, or why that is not known, for a plan,
// which does not fail because of it.
func (k *Keeper) LacksOrWhy(ctx context.Context) *api.UncarriedSide {
	mine, err := k.lacks(ctx)
	if err != nil {
		r := k.side.Record()
		mine = &api.UncarriedSide{Agent: k.agent, Role: api.Role(r.Role), From: r.Peer, Objects: []api.UncarriedObject{},
			Problem: side.ProblemOf(problem.As(err), api.Warns)}
	}
	return mine
}

// Show says what neither PostgreSQL nor the link carries, of both sides.
func (k *Keeper) Show(ctx context.Context) (api.Uncarried, error) {
	r := k.side.Record()
	out := api.Uncarried{Link: r.Name, Sides: []api.UncarriedSide{}}
	mine, err := k.lacks(ctx)
	if err != nil {
		return out, err
	}
	if mine != nil {
		out.Sides = append(out.Sides, *mine)
	}
	asking, stop := context.WithTimeout(ctx, 2*askPatience)
	defer stop()
	theirs, err := side.Call[*api.UncarriedSide](asking, k.side, MethodShow, side.ReferenceOf(r))
	switch {
	case err != nil:
		out.Sides = append(out.Sides, api.UncarriedSide{Agent: r.Peer, Role: api.Role(role.Role(r.Role).Other()), From: k.agent, Objects: []api.UncarriedObject{},
			Problem: side.ProblemOf(problem.As(err), api.Warns)})
	case theirs != nil:
		out.Sides = append(out.Sides, *theirs)
	}
	return out, nil
}

// HandleShow answers the other side for this one.
func (k *Keeper) HandleShow(ctx context.Context, r side.Reference) (*api.UncarriedSide, error) {
	if err := k.side.SameEpoch(r); err != nil {
		return nil, err
	}
	return k.lacks(ctx)
}
