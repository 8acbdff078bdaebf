package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// failoverView is a page of the wizard that fails a link over. What was chosen stands in
// the address.
type failoverView struct {
	Link     api.Link
	Step     string // type, plan or confirm
	In       api.FailoverRequest
	Forcible bool // whether a forced failover can be asked for here
	Plan     *api.FailoverPlan
	Next     string // the address of the next step
	Script   script
}

// failoverOf reads what was chosen.
func failoverOf(q url.Values) (in api.FailoverRequest, err error) {
	in.Type = api.Planned
	if q.Get("type") == string(api.Forced) {
		in.Type, in.AcceptDataLoss = api.Forced, true
		in.Insist = q.Get("insist") != ""
		return in, nil
	}
	in.Cutover = q.Get("cutover") != ""
	if text := q.Get("drain"); text != "" {
		if in.DrainSeconds, err = strconv.ParseFloat(text, 64); err != nil || in.DrainSeconds < 0 {
			return in, &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: "the time to finish is not a number of seconds"}
		}
	}
	return in, nil
}

func failoverWizard(x *exchange) error {
	q := x.r.URL.Query()
	l, err := x.agent.Link(x.ctx(), x.r.PathValue("name"))
	if err != nil {
		return err
	}
	v := failoverView{Link: l, Step: q.Get("step"), Forcible: l.Role == api.Secondary || l.Phase == api.Fenced}
	if v.In, err = failoverOf(q); err != nil {
		return err
	}
	if v.Script, err = ofFailover(l.Name, v.In); err != nil {
		return err
	}
	var trouble *api.Error
	switch v.Step {
	case "plan", "confirm":
		p, err := x.agent.FailoverPlan(x.ctx(), l.Name, api.FailoverPlanRequest{Type: v.In.Type, Cutover: v.In.Cutover, DrainSeconds: v.In.DrainSeconds})
		if err != nil {
			trouble = x.explained(err)
		} else {
			v.Plan = &p
		}
		q.Set("step", "confirm")
		v.Next = "?" + q.Encode()
	default:
		v.Step = "type"
	}
	return x.show("failover", page{Title: l.Name + ": fail over", Nav: "links", Error: trouble, D: v})
}

func failOver(x *exchange) error {
	name, form := x.r.PathValue("name"), x.r.PostForm
	in, err := failoverOf(form)
	if err != nil {
		return err
	}
	if in.Type == api.Forced && form.Get("confirm") != name {
		return errNotConfirmed
	}
	if _, err := x.agent.Failover(x.ctx(), name, in); err != nil {
		return err
	}
	return x.done(Base+"links/"+url.PathEscape(name)+"/failover/steps", "")
}

// errNotConfirmed refuses what was not confirmed by the name.
var errNotConfirmed = &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: "the name that was typed is not the right one", Hint: "go back and type the name as it is shown"}

// failoverSteps follows a change of places. After a cutover the link is gone, and the agent
// knows how it ended all the same.
func failoverSteps(x *exchange) error {
	name := x.r.PathValue("name")
	p, err := x.agent.FailoverProgress(x.ctx(), name)
	if err != nil {
		return err
	}
	d := map[string]any{"Name": name, "P": p, "There": false, "Fenced": false}
	if l, err := x.agent.Link(x.ctx(), name); err == nil {
		d["There"], d["Link"] = true, l
	}
	if p.State == api.FailoverDone {
		if u, err := x.agent.Uncarried(x.ctx(), name); err == nil {
			i := slices.IndexFunc(u.Sides, func(s api.UncarriedSide) bool { return s.Role == api.Primary && len(s.Objects) > 0 })
			if i >= 0 {
				d["Uncarried"] = u.Sides[i]
			}
		}
	}
	return x.show("failover_steps", page{Title: name + ": changing places", Nav: "links", Live: true, D: d})
}

func cancelFailover(x *exchange) error {
	name := x.r.PathValue("name")
	if _, err := x.agent.CancelFailover(x.ctx(), name); err != nil {
		return err
	}
	return x.done(Base+"links/"+url.PathEscape(name)+"/failover/steps", "")
}

func rejoinWizard(x *exchange) error {
	name := x.r.PathValue("name")
	l, err := x.agent.Link(x.ctx(), name)
	if err != nil {
		return err
	}
	p, err := x.agent.RejoinPlan(x.ctx(), name)
	var trouble *api.Error
	if err != nil {
		trouble = x.explained(err)
	}
	s, err := ofRejoin(name, p.Needs)
	if err != nil {
		return err
	}
	return x.show("rejoin", page{Title: name + ": rejoin", Nav: "links", Live: p.Phase == api.Seeding, Error: trouble, D: map[string]any{"Link": l, "P": p, "Script": s}})
}

func rejoin(x *exchange) error {
	name, form := x.r.PathValue("name"), x.r.PostForm
	if form.Get("confirm") != name {
		return errNotConfirmed
	}
	if _, err := x.agent.Rejoin(x.ctx(), name, api.Rejoin{Accept: form["accept"]}); err != nil {
		return err
	}
	return x.done(Base+"links/"+url.PathEscape(name)+"/rejoin", "rejoining")
}
