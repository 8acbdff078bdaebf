// Package rejoin has what a forced failover leaves behind on the former primary: what that had
// committed alone, which either side shows, and how it becomes the twin again by overwriting what
// was lost (docs/design/0015-rejoin.md). Streaming from the new primary, between the steps here, is
// the link's.
package rejoin

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which a new primary's operator lets the former one rejoin.
const (
	MethodPlan  = "rejoin.plan"  // what would it take?
	MethodBegin = "rejoin.begin" // do it
)

// Request is what an operator asks of a former primary.
type Request struct {
	ID string `json:"id"`
	api.Rejoin
}

// LinkID implements side.Request.
func (r Request) LinkID() string { return r.ID }

// Twin is what a rejoin needs of the link whose twin the former primary becomes.
type Twin struct {
	Step   func(text string)                               // is told what is done
	Doing  func() string                                   // what was told last
	Stands func(at lsn.LSN)                                // is told where the twin stands
	Empty  func(ctx context.Context, conn *pgx.Conn) error // empties the database
	// Compare adds to a plan what a comparison with the new primary would do.
	Compare func(ctx context.Context, conn *pgx.Conn, plan *api.RejoinPlan) error
	// Unheld says whether the new primary holds no log for this side.
	Unheld func(ctx context.Context, r catalog.Link) bool
}

// Former is a former primary, which a forced failover has left behind.
type Former struct {
	side   *side.Side
	meets  *meet.Secondary
	losses *Losses
	twin   Twin
}

// NewFormer returns the former primary that a side is or may become.
func NewFormer(s *side.Side, meets *meet.Secondary, losses *Losses, twin Twin) *Former {
	return &Former{side: s, meets: meets, losses: losses, twin: twin}
}

// Parting names the forced failover that left this side behind.
func (f *Former) Parting() lost.Parting {
	r := f.side.Record()
	return lost.Parting{Link: r.ID, Epoch: r.Epoch, Parted: r.Parted}
}

// needs says what has to be accepted of a plan that mends by keys.
func needs(p *lost.Plan) []string {
	var codes []string
	for code, needed := range map[string]bool{lost.AcceptTables: len(p.Anew) > 0, lost.AcceptDrop: len(p.Drop) > 0, lost.AcceptKeep: len(p.Keep) > 0, lost.AcceptCompare: len(p.Whole) > 0} {
		if needed {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

// rejoinsHere says whether this side is the one that has to rejoin; otherwise the
// other may be.
func (f *Former) rejoinsHere(r catalog.Link) bool {
	return r.Diverged && role.Role(r.Role) == role.Secondary
}

// Plan says what it takes to make the former primary a twin again.
func (f *Former) Plan(ctx context.Context) (api.RejoinPlan, error) {
	r := f.side.Record()
	if f.rejoinsHere(r) {
		return f.HandlePlan(ctx, Request{ID: r.ID})
	}
	if !r.Diverged {
		return api.RejoinPlan{}, notParted(r)
	}
	return side.Call[api.RejoinPlan](ctx, f.side, MethodPlan, Request{ID: r.ID})
}

// notParted says that there is nothing to rejoin.
func notParted(r catalog.Link) error {
	return problem.New(problem.Conflict, "not_parted", "the two sides of link %s have one history: there is nothing to rejoin", r.Name).On(r.Name).
		WithHint("twinspan link show %s says how it stands", r.Name)
}

// HandlePlan answers for the former primary. Where the lost rows alone cannot be
// mended, or that is what the request accepts, it is the plan of a comparison.
func (f *Former) HandlePlan(ctx context.Context, request Request) (api.RejoinPlan, error) {
	r := f.side.Record()
	out := api.RejoinPlan{Link: r.Name, Database: f.side.Database, Agent: f.losses.with.Agent}
	if !f.rejoinsHere(r) {
		return out, notFenced(r)
	}
	out.Phase = api.Phase(r.Phase)
	out.Step = f.twin.Doing()
	if p := r.Problem; p != nil && p.Code != "twin_diverged" {
		out.Problem = side.ProblemOf(p, api.Blocks)
	}
	conn, err := lost.Connect(ctx, f.side.DSN, f.side.Name())
	if err != nil {
		return out, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := lost.Look(ctx, conn, r.ID, r.Epoch)
	switch {
	case problem.CodeOf(err) == "lost_unknown" || err == nil && !m.Complete && m.Problem == "":
		return out, problem.New(problem.Transient, "lost_incomplete", "the transactions that link %s has lost are still being read", r.Name).On(r.Name).
			WithHint("twinspan link lost %s shows how far that is; then rejoin", r.Name)
	case err != nil:
		return out, err
	}
	out.Unreadable, out.Cleared = m.Problem, m.Cleared
	compare := slices.Contains(request.Accept, lost.AcceptCompare)
	if !compare && m.Problem == "" && f.twin.Unheld(ctx, r) {
		compare, out.Unreadable = true, "log_not_held"
	}
	if m.Problem != "" || compare {
		return out, f.twin.Compare(ctx, conn, &out)
	}
	if m.Cleared {
		out.Needs = m.Accepted
		return out, nil
	}
	plan, err := lost.MakePlan(ctx, conn, r.ID, r.Epoch)
	if err != nil {
		return out, err
	}
	if len(plan.Whole) > 0 {
		out.Irreversible = plan.Whole
		return out, f.twin.Compare(ctx, conn, &out)
	}
	out.Needs = needs(plan)
	for _, t := range plan.Touched {
		out.Tables = append(out.Tables, api.RejoinTable{Table: t.Name.String(), Changes: t.Changes})
	}
	for _, t := range plan.Anew {
		out.Reseed = append(out.Reseed, api.ReseedTable{Table: t.Name.String(), Why: string(t.Why), Bytes: t.Bytes})
	}
	for _, d := range plan.Drop {
		out.Drop = append(out.Drop, strings.ToLower(d.Kind)+" "+d.Name)
	}
	out.Keep = plan.Keep
	return out, nil
}

// notFenced says that this side is not one that could rejoin.
func notFenced(r catalog.Link) error {
	p := problem.New(problem.Conflict, "not_fenced", "this side of link %s is %s, in phase %s: it has nothing to rejoin", r.Name, r.Role, r.Phase).On(r.Name)
	if role.Role(r.Role) == role.Primary && !r.Diverged {
		return p.WithHint("the former primary learns of the failover when the agents meet; try again in a moment")
	}
	return p
}

// Begin makes the former primary a twin again, on whichever side it is asked for. It
// returns as soon as that has begun.
func (f *Former) Begin(ctx context.Context, in api.Rejoin) error {
	r := f.side.Record()
	if f.rejoinsHere(r) {
		return f.HandleBegin(ctx, Request{ID: r.ID, Rejoin: in})
	}
	if !r.Diverged {
		return notParted(r)
	}
	return side.Tell(ctx, f.side, MethodBegin, Request{ID: r.ID, Rejoin: in})
}

// HandleBegin begins the rejoin of this side.
func (f *Former) HandleBegin(ctx context.Context, request Request) error {
	r := f.side.Record()
	known := []string{lost.AcceptTables, lost.AcceptDrop, lost.AcceptKeep, lost.AcceptCompare, lost.AcceptCopy}
	for _, code := range request.Accept {
		if !slices.Contains(known, code) {
			return problem.New(problem.Invalid, "accept_unknown", "%q is nothing that a rejoin does", code).On(code).WithHint("it can be told to: %s", strings.Join(known, ", "))
		}
	}
	plan, err := f.HandlePlan(ctx, request)
	if err != nil {
		return err
	}
	if role.Phase(r.Phase) != role.Fenced {
		return problem.New(problem.Conflict, "rejoin_running", "the rejoin of link %s is under way", r.Name).On(r.Name).
			WithHint("twinspan link watch %s shows it", r.Name)
	}
	if err := lost.Consent(r.Name, plan.Needs, request.Accept); err != nil {
		return err
	}
	conn, err := lost.Connect(ctx, f.side.DSN, f.side.Name())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := lost.Accept(ctx, conn, r.ID, r.Epoch, request.Accept); err != nil {
		return err
	}
	return f.side.Happen(ctx, role.Rejoin, nil)
}
