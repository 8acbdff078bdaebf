package link

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// MethodAccept has the secondary accept differences that it has found.
const MethodAccept = "schema.accept"

// AcceptRequest asks for it, by the codes of problems.
type AcceptRequest struct {
	Reference
	Codes []string `json:"codes"`
}

// The policies on sessions that stand in the way of what is applied: waits cancels
// nobody; cancels does after a time, cancelDefault unless it says otherwise.
const (
	waits         = "wait"
	cancels       = "cancel"
	cancelDefault = 30 * time.Second
)

// ParseConflict reads a policy on sessions that stand in the way of what is applied:
// wait, cancel, or cancel=AFTER. It returns it in full. Nothing is wait.
func ParseConflict(text string) (policy string, err error) {
	how, after, given := strings.Cut(text, "=")
	d := cancelDefault
	if given {
		if d, err = time.ParseDuration(after); err != nil || d < 0 {
			how = ""
		}
	}
	switch {
	case how == waits && !given, text == "":
		return waits, nil
	case how == cancels:
		return cancels + "=" + d.String(), nil
	}
	return "", problem.New(problem.Invalid, "conflict_policy_invalid", "%q says not what becomes of sessions in the way", text).
		WithHint("wait, cancel, or cancel=AFTER with a duration like 30s")
}

// applyConflict gives an applier a policy that ParseConflict returned.
func applyConflict(a *apply.Applier, policy string) {
	how, after, _ := strings.Cut(policy, "=")
	d, err := time.ParseDuration(after)
	a.SetConflict(how == cancels && err == nil, d)
}

// acceptThere has the secondary accept what the codes are about.
func (l *Link) acceptThere(ctx context.Context, codes []string) error {
	if len(codes) == 0 {
		return nil
	}
	r := l.snapshot()
	if i := slices.Index(codes, eventTriggerOfRole); i >= 0 {
		if role.Role(r.Role) != role.Primary {
			return problem.New(problem.Unauthorised, "accept_here", "%s is for the primary's operator to accept", eventTriggerOfRole).On(l.Name()).
				WithHint("at the primary's agent: twinspan link set %s --accept %s", l.Name(), eventTriggerOfRole)
		}
		if codes = slices.Delete(slices.Clone(codes), i, i+1); len(codes) == 0 {
			return l.AgreeToEventTriggers(ctx)
		}
		if err := l.AgreeToEventTriggers(ctx); err != nil {
			return err
		}
	}
	if role.Role(r.Role) != role.Secondary {
		return l.place.Peers.Call(ctx, r.Peer, MethodAccept, AcceptRequest{Reference{ID: r.ID, Epoch: r.Epoch}, codes}, nil)
	}
	for _, code := range codes {
		if err := l.accept(ctx, code); err != nil {
			return err
		}
	}
	return nil
}

// HandleAccept does it for the primary's operator.
func (l *Link) HandleAccept(ctx context.Context, request AcceptRequest) error {
	if err := l.secondaryAt(request.Reference); err != nil {
		return err
	}
	if slices.Contains(request.Codes, superuserCommands) {
		// It is power over this side's instance, which the other side does not decide on.
		return problem.New(problem.Unauthorised, "accept_here", "%s is for the secondary's operator to accept", superuserCommands).On(l.Name()).
			WithHint("at the secondary's agent: twinspan link set %s --accept %s", l.Name(), superuserCommands)
	}
	return l.acceptThere(ctx, request.Codes)
}

// consent stores what was agreed to, or takes that back.
func (l *Link) consent(ctx context.Context, code string, given bool) error {
	r := l.snapshot()
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.SetConsent(ctx, conn, r.ID, code, given)
	})
	if err == nil {
		l.log.Info("agreement changed", "code", code, "given", given)
	}
	return err
}

// withdraw takes back what was accepted on this side.
func (l *Link) withdraw(ctx context.Context, codes []string) error {
	for _, code := range codes {
		if code != superuserCommands {
			return problem.New(problem.Invalid, "accept_unknown", "%s cannot be withdrawn", code).On(code).WithHint("%s", superuserCommands)
		}
		if l.Role() != role.Secondary {
			return problem.New(problem.Unauthorised, "accept_here", "%s is for the secondary's operator to accept and to withdraw", superuserCommands).On(l.Name()).
				WithHint("at the secondary's agent: twinspan link set %s --withdraw %s", l.Name(), superuserCommands)
		}
		if err := l.consent(ctx, superuserCommands, false); err != nil {
			return err
		}
	}
	return nil
}

// accept lets the differences be that a problem is about.
func (l *Link) accept(ctx context.Context, code string) error {
	if code == superuserCommands {
		return l.consent(ctx, superuserCommands, true)
	}
	if code == acceptDrop {
		if p := l.snapshot().Problem; p == nil || p.Code != "repair_drops_objects" {
			return problem.New(problem.NotFound, "nothing_to_accept", "no repair of the link waits for something to be dropped").On(code)
		}
		return l.consent(ctx, acceptDrop, true)
	}
	if code != "schema_drifted" && code != "schema_differs_since_copy" {
		return problem.New(problem.Invalid, "accept_unknown", "%s is not a problem that a link can be told to accept", code).On(code).
			WithHint("schema_drifted, schema_differs_since_copy, drop_objects, %s or %s", eventTriggerOfRole, superuserCommands)
	}
	accepted := 0
	err := l.changeWatch(ctx, func(w *catalog.Watch) {
		if code == "schema_drifted" {
			for _, d := range w.Found {
				d.Accepted = true
				w.Known = append(w.Known, d)
				accepted++
			}
			w.Found = nil
			return
		}
		for i := range w.Known {
			if !w.Known[i].Accepted {
				w.Known[i].Accepted = true
				accepted++
			}
		}
	})
	if err != nil {
		return err
	}
	if accepted == 0 {
		return problem.New(problem.NotFound, "nothing_to_accept", "the link knows of no difference that %s is about", code).On(code).
			WithHint("twinspan link show %s says what is wrong", l.Name())
	}
	l.showKnown()
	return nil
}
