package link

import (
	"context"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// The methods by which a new primary's operator lets the former one rejoin.
const (
	MethodRejoinPlan = "rejoin.plan"  // what would it take?
	MethodRejoin     = "rejoin.begin" // do it
)

// RejoinRequest is what an operator asks of a former primary.
type RejoinRequest struct {
	ID string `json:"id"`
	api.Rejoin
}

// What an operator accepts of a rejoin, by code.
const (
	acceptTables  = "reseed_tables"
	acceptDrop    = "drop_objects"
	acceptKeep    = "keep_schema"
	acceptCompare = "compare_database"
	acceptCopy    = "copy_database"
)

// needs says what has to be accepted of a plan that mends by keys.
func needs(p *lost.Plan) []string {
	var codes []string
	for code, needed := range map[string]bool{acceptTables: len(p.Anew) > 0, acceptDrop: len(p.Drop) > 0, acceptKeep: len(p.Keep) > 0, acceptCompare: len(p.Whole) > 0} {
		if needed {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

// consent refuses what was not accepted.
func consent(name string, needed, accepted []string) error {
	if slices.Contains(accepted, acceptCopy) {
		return nil
	}
	missing := slices.DeleteFunc(slices.Clone(needed), func(code string) bool { return slices.Contains(accepted, code) })
	if len(missing) == 0 {
		return nil
	}
	return problem.New(problem.Conflict, "rejoin_not_accepted", "the rejoin of link %s does more than overwrite rows: %s", name, strings.Join(missing, ", ")).On(name).
		WithHint("twinspan link rejoin %[1]s --plan says what; twinspan link rejoin %[1]s --accept %[2]s does it", name, strings.Join(needed, ","))
}

// rejoinsHere says whether this side is the one that has to rejoin; otherwise the
// other may be.
func (l *Link) rejoinsHere(r catalog.Link) bool {
	return r.Diverged && role.Role(r.Role) == role.Secondary
}

// RejoinPlan says what it takes to make the former primary a twin again.
func (l *Link) RejoinPlan(ctx context.Context) (api.RejoinPlan, error) {
	r := l.snapshot()
	if l.rejoinsHere(r) {
		return l.HandleRejoinPlan(ctx, RejoinRequest{ID: r.ID})
	}
	if !r.Diverged {
		return api.RejoinPlan{}, notParted(r)
	}
	var plan api.RejoinPlan
	err := l.place.Peers.Call(ctx, r.Peer, MethodRejoinPlan, RejoinRequest{ID: r.ID}, &plan)
	return plan, err
}

// notParted says that there is nothing to rejoin.
func notParted(r catalog.Link) error {
	return problem.New(problem.Conflict, "not_parted", "the two sides of link %s have one history: there is nothing to rejoin", r.Name).On(r.Name).
		WithHint("twinspan link show %s says how it stands", r.Name)
}

// HandleRejoinPlan answers for the former primary. Where the lost rows alone cannot be
// mended, or that is what the request accepts, it is the plan of a comparison.
func (l *Link) HandleRejoinPlan(ctx context.Context, request RejoinRequest) (api.RejoinPlan, error) {
	r := l.snapshot()
	out := api.RejoinPlan{Link: r.Name, Database: l.database, Agent: l.place.AgentName}
	if !l.rejoinsHere(r) {
		return out, notFenced(r)
	}
	out.Phase = api.Phase(r.Phase)
	l.mu.Lock()
	out.Step = l.live.seeding.Step
	l.mu.Unlock()
	if p := r.Problem; p != nil && p.Code != "twin_diverged" {
		out.Problem = ProblemOf(p, api.Blocks)
	}
	conn, err := lost.Connect(ctx, l.dsn, l.Name())
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
	compare := slices.Contains(request.Accept, acceptCompare)
	if !compare && m.Problem == "" && l.nothingHeld(ctx, r) {
		compare, out.Unreadable = true, "log_not_held"
	}
	if m.Problem != "" || compare {
		return out, l.planComparison(ctx, conn, &out)
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
		return out, l.planComparison(ctx, conn, &out)
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

// nothingHeld says whether the new primary holds no log for this side: it was made
// primary on a server that could not make a slot. While it is away that is not known,
// and nothing can be begun.
func (l *Link) nothingHeld(ctx context.Context, r catalog.Link) bool {
	ctx, stop := context.WithTimeout(ctx, contactPatience)
	defer stop()
	var other Standing
	err := l.place.Peers.Call(ctx, r.Peer, MethodState, Reference{ID: r.ID, Epoch: r.Epoch}, &other)
	return err == nil && other.NoSlot
}

// notFenced says that this side is not one that could rejoin.
func notFenced(r catalog.Link) error {
	p := problem.New(problem.Conflict, "not_fenced", "this side of link %s is %s, in phase %s: it has nothing to rejoin", r.Name, r.Role, r.Phase).On(r.Name)
	if role.Role(r.Role) == role.Primary && !r.Diverged {
		return p.WithHint("the former primary learns of the failover when the agents meet; try again in a moment")
	}
	return p
}

// Rejoin makes the former primary a twin again, on whichever side it is asked for. It
// returns as soon as that has begun.
func (l *Link) Rejoin(ctx context.Context, in api.Rejoin) error {
	r := l.snapshot()
	if l.rejoinsHere(r) {
		return l.HandleRejoin(ctx, RejoinRequest{ID: r.ID, Rejoin: in})
	}
	if !r.Diverged {
		return notParted(r)
	}
	return l.place.Peers.Call(ctx, r.Peer, MethodRejoin, RejoinRequest{ID: r.ID, Rejoin: in}, nil)
}

// HandleRejoin begins the rejoin of this side.
func (l *Link) HandleRejoin(ctx context.Context, request RejoinRequest) error {
	r := l.snapshot()
	known := []string{acceptTables, acceptDrop, acceptKeep, acceptCompare, acceptCopy}
	for _, code := range request.Accept {
		if !slices.Contains(known, code) {
			return problem.New(problem.Invalid, "accept_unknown", "%q is nothing that a rejoin does", code).On(code).WithHint("it can be told to: %s", strings.Join(known, ", "))
		}
	}
	plan, err := l.HandleRejoinPlan(ctx, request)
	if err != nil {
		return err
	}
	if role.Phase(r.Phase) != role.Fenced {
		return problem.New(problem.Conflict, "rejoin_running", "the rejoin of link %s is under way", r.Name).On(r.Name).
			WithHint("twinspan link watch %s shows it", r.Name)
	}
	if err := consent(r.Name, plan.Needs, request.Accept); err != nil {
		return err
	}
	conn, err := lost.Connect(ctx, l.dsn, l.Name())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := lost.Accept(ctx, conn, r.ID, r.Epoch, request.Accept); err != nil {
		return err
	}
	return l.happen(ctx, role.Rejoin, nil)
}
