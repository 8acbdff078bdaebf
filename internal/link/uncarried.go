package link

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
)

// The methods about what is not carried.
const (
	MethodInventory = "uncarried.read" // what do you have, as the primary?
	MethodUncarried = "uncarried.show" // what does your side lack?
)

// Inventory is the primary's answer.
type Inventory struct {
	Inventory assess.Inventory `json:"inventory"`
}

const (
	// inventoryInterval is how often a secondary looks what its primary has, for the time when
	// that cannot be asked any more.
	inventoryInterval = time.Minute
	// inventoryPatience bounds one look, askPatience one for which somebody waits: perhaps with
	// a failover, and the other side may be what has failed.
	inventoryPatience = 20 * time.Second
	askPatience       = 3 * time.Second
)

// HandleInventory tells the secondary what this side has as the primary.
func (l *Link) HandleInventory(ctx context.Context, r Reference) (Inventory, error) {
	if role.Role(l.snapshot().Role) != role.Primary {
		return Inventory{}, problem.New(problem.Conflict, "not_primary", "this side is not the primary of the link").On(l.Name())
	}
	if err := l.sameEpoch(r); err != nil {
		return Inventory{}, err
	}
	i, err := l.inventory(ctx)
	return Inventory{i}, err
}

// inventory reads what this side has.
func (l *Link) inventory(ctx context.Context) (out assess.Inventory, err error) {
	cron := ""
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
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
	if err != nil || cron == "" || cron == l.database {
		return out, err
	}
	conn, err := l.place.Server.WithDatabase(cron).Connect(ctx, pg.Session{Name: l.Name() + "/jobs"})
	if err != nil {
		if pg.IsUnknownDatabase(err) {
			return out, nil
		}
		return out, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	jobs, err := assess.ReadJobs(ctx, conn, l.database)
	out.Jobs = append(out.Jobs, jobs...)
	return out, err
}

// inventoryLoop keeps in the twin's database what the primary has.
func (l *Link) inventoryLoop(ctx context.Context) {
	l.whileFollowing(ctx, inventoryInterval, func(r catalog.Link) {
		// A primary of an older release, or one that is away, does not answer.
		if _, err := l.askInventory(ctx, r); err != nil && ctx.Err() == nil {
			l.log.Debug("it is not known what the primary has beside the link", "err", err)
		}
	})
}

// askInventory asks the primary, and keeps the answer.
func (l *Link) askInventory(ctx context.Context, r catalog.Link) (catalog.Former, error) {
	ctx, stop := context.WithTimeout(ctx, inventoryPatience)
	defer stop()
	var answer Inventory
	if err := l.place.Peers.Call(ctx, r.Peer, MethodInventory, Reference{ID: r.ID, Epoch: r.Epoch}, &answer); err != nil {
		return catalog.Former{}, err
	}
	text, err := json.Marshal(answer.Inventory)
	if err != nil {
		return catalog.Former{}, err
	}
	f := catalog.Former{Agent: r.Peer, At: time.Now().UTC(), Inventory: text}
	return f, l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return catalog.StoreFormer(ctx, conn, r.ID, f) })
}

// lacks says what this side lacks of what the other has, or had when it was last looked at.
// A primary that was never a secondary lacks nothing, which is nil.
func (l *Link) lacks(ctx context.Context) (*api.UncarriedSide, error) {
	r := l.snapshot()
	out := &api.UncarriedSide{Agent: l.place.AgentName, Role: api.Role(r.Role), From: r.Peer, Objects: []api.UncarriedObject{}}
	var f *catalog.Former
	if role.Role(r.Role) == role.Secondary && r.Seeded && !r.Diverged {
		asking, stop := context.WithTimeout(ctx, askPatience)
		fresh, err := l.askInventory(asking, r)
		stop()
		if err == nil {
			f = &fresh
		} else {
			out.Problem = ProblemOf(problem.As(err), api.Warns)
		}
	}
	if f == nil {
		err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
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
	here, err := l.inventory(ctx)
	if err != nil {
		return nil, err
	}
	at := f.At.UTC()
	out.From, out.AsOf, out.Objects = f.Agent, &at, assess.Uncarried(there, here)
	return out, nil
}

// lacksOrWhy is lacks for a plan, which does not fail because of it.
func (l *Link) lacksOrWhy(ctx context.Context) *api.UncarriedSide {
	side, err := l.lacks(ctx)
	if err != nil {
		r := l.snapshot()
		side = &api.UncarriedSide{Agent: l.place.AgentName, Role: api.Role(r.Role), From: r.Peer, Objects: []api.UncarriedObject{}, Problem: ProblemOf(problem.As(err), api.Warns)}
	}
	return side
}

// Uncarried says what neither PostgreSQL nor the link carries, of both sides.
func (l *Link) Uncarried(ctx context.Context) (api.Uncarried, error) {
	r := l.snapshot()
	out := api.Uncarried{Link: r.Name, Sides: []api.UncarriedSide{}}
	mine, err := l.lacks(ctx)
	if err != nil {
		return out, err
	}
	if mine != nil {
		out.Sides = append(out.Sides, *mine)
	}
	asking, stop := context.WithTimeout(ctx, 2*askPatience)
	defer stop()
	var theirs *api.UncarriedSide
	err = l.place.Peers.Call(asking, r.Peer, MethodUncarried, Reference{ID: r.ID, Epoch: r.Epoch}, &theirs)
	switch {
	case err != nil:
		out.Sides = append(out.Sides, api.UncarriedSide{Agent: r.Peer, Role: api.Role(otherRole(r)), From: l.place.AgentName, Objects: []api.UncarriedObject{},
			Problem: ProblemOf(problem.As(err), api.Warns)})
	case theirs != nil:
		out.Sides = append(out.Sides, *theirs)
	}
	return out, nil
}

// HandleUncarried answers the other side for this one.
func (l *Link) HandleUncarried(ctx context.Context, r Reference) (*api.UncarriedSide, error) {
	if err := l.sameEpoch(r); err != nil {
		return nil, err
	}
	return l.lacks(ctx)
}
