package link

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/schemawatch"
	"github.com/twinspan/twinspan/internal/side"
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
	r := l.side.Record()
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
	return side.DoOnSecondary(ctx, l.side, MethodAccept, AcceptRequest{side.ReferenceOf(r), codes}, func(ctx context.Context) error {
		for _, code := range codes {
			if err := l.accept(ctx, code); err != nil {
				return err
			}
		}
		return nil
	})
}

// handleAccept does it for the primary's operator.
func (l *Link) handleAccept(ctx context.Context, request AcceptRequest) error {
	if err := l.side.SecondaryAt(request.Reference); err != nil {
		return err
	}
	if slices.Contains(request.Codes, dbroles.SuperuserCommands) {
		// It is power over this side's instance, which the other side does not decide on.
		return problem.New(problem.Unauthorised, "accept_here", "%s is for the secondary's operator to accept", dbroles.SuperuserCommands).On(l.Name()).
			WithHint("at the secondary's agent: twinspan link set %s --accept %s", l.Name(), dbroles.SuperuserCommands)
	}
	return l.acceptThere(ctx, request.Codes)
}

// withdraw takes back what was accepted on this side.
func (l *Link) withdraw(ctx context.Context, codes []string) error {
	for _, code := range codes {
		if code != dbroles.SuperuserCommands && code != dbroles.SettingsDiffer {
			return problem.New(problem.Invalid, "accept_unknown", "%s cannot be withdrawn", code).On(code).WithHint("%s or %s", dbroles.SuperuserCommands, dbroles.SettingsDiffer)
		}
		if l.Role() != role.Secondary {
			return problem.New(problem.Unauthorised, "accept_here", "%s is for the secondary's operator to withdraw", code).On(l.Name()).
				WithHint("at the secondary's agent: twinspan link set %s --withdraw %s", l.Name(), code)
		}
		if err := l.side.Consent(ctx, code, false); err != nil {
			return err
		}
	}
	return nil
}

// accept lets the differences be that a problem is about.
func (l *Link) accept(ctx context.Context, code string) error {
	if code == dbroles.SuperuserCommands {
		return l.side.Consent(ctx, dbroles.SuperuserCommands, true)
	}
	if code == dbroles.SettingsDiffer {
		if err := l.side.Consent(ctx, dbroles.SettingsDiffer, true); err != nil {
			return err
		}
		l.side.Warn(dbroles.SettingsDiffer, nil)
		return nil
	}
	if code == lost.AcceptDrop {
		if p := l.side.Record().Problem; p == nil || p.Code != "repair_drops_objects" {
			return problem.New(problem.NotFound, "nothing_to_accept", "no repair of the link waits for something to be dropped").On(code)
		}
		return l.side.Consent(ctx, lost.AcceptDrop, true)
	}
	if code != schemawatch.Drifted && code != schemawatch.SinceCopy {
		return problem.New(problem.Invalid, "accept_unknown", "%s is not a problem that a link can be told to accept", code).On(code).
			WithHint("%s, %s, drop_objects, %s, %s or %s", schemawatch.Drifted, schemawatch.SinceCopy, dbroles.SettingsDiffer, eventTriggerOfRole, dbroles.SuperuserCommands)
	}
	return l.schema.Accept(ctx, code)
}
