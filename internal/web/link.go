package web

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// chartSeconds is how far back charts go.
const chartSeconds = 3600

// station is a place on the way of the primary's log, and what waits before it.
type station struct {
	Name, Of, At string
	Waits        string // what waits, with how much; empty for nothing
	Bytes        int64
}

// stations are the places of a position, in order.
func stations(p api.Position) []station {
	list := []station{
		{Name: "Written", Of: "by the primary", At: p.Written},
		{Name: "Sent", Of: "to the twin's agent", At: p.Sent, Waits: "to be sent"},
		{Name: "Received", Of: "by the twin's agent", At: p.Received, Waits: "on the way"},
		{Name: "Applied", Of: "and visible", At: p.Applied, Waits: "to be applied"},
		{Name: "Confirmed", Of: "and durable", At: p.Confirmed, Waits: "to become durable"},
	}
	var before lsn.LSN
	for i := range list {
		s := &list[i]
		at, err := lsn.Parse(s.At)
		if err != nil || at == 0 {
			s.At, s.Waits = "", ""
			continue
		}
		if s.Bytes = at.Behind(before); before == 0 || s.Bytes <= 0 || s.Waits == "" {
			s.Waits = ""
		}
		before = at
	}
	return list
}

// linkView is the page of a link.
type linkView struct {
	api.Link
	Primary, Twin place
	Stations      []station
	History       []api.Event
	Failover      *api.FailoverProgress
	Tables        *api.SeedingTables // of a first copy that is under way
	Figures       []figure
}

// place is one side of a link.
type place struct{ Agent, Database string }

// sides are the primary and the twin, as far as names are known here.
func sides(l api.Link, own string) (primary, twin place) {
	here, there := place{own, l.Database}, place{l.Peer.Name, l.Peer.Database}
	if l.Role == api.Primary {
		return here, there
	}
	return there, here
}

func showLink(x *exchange) error {
	name := x.r.PathValue("name")
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	l, err := x.agent.Link(x.ctx(), name)
	if err != nil {
		return err
	}
	v := linkView{Link: l, Stations: stations(l.Position)}
	v.Primary, v.Twin = sides(l, agent.Name)
	// What cannot be had of these is not shown; the link's problems say why.
	if h, err := x.agent.History(x.ctx(), name, chartSeconds); err == nil {
		v.Figures = figures(h)
	}
	if e, err := x.agent.Events(x.ctx(), api.EventQuery{Newest: true, Limit: mostTurns, Link: name, Kinds: []string{"role", "link", "failover.done", "failover.undone"}}); err == nil {
		slices.Reverse(e.Events)
		v.History = e.Events
	}
	if p, err := x.agent.FailoverProgress(x.ctx(), name); err == nil && p.State == api.FailoverRunning {
		v.Failover = &p
	}
	if l.Phase == api.Seeding {
		if s, err := x.agent.SeedingTables(x.ctx(), name); err == nil && s.Known {
			s.More += max(0, len(s.Tables)-mostTables)
			s.Tables = s.Tables[:min(len(s.Tables), mostTables)]
			v.Tables = &s
		}
	}
	return x.show("link", page{Title: l.Name, Nav: "links", Live: true, Agent: &agent, D: v})
}

// mostTables is how many tables of a first copy a link's page shows.
const mostTables = 30

// mostTurns is how much of its history a link's page shows.
const mostTurns = 12

// figure is a chart with its numbers.
type figure struct {
	ID, Title, Unit string
	Now             string
	Rows            []figureRow
	Known           bool
}

// figureRow is five minutes of a chart.
type figureRow struct {
	From                 string
	Least, Average, Most string
}

// column is what a chart is drawn of.
type column struct {
	id, title, unit string
	of              func(api.HistorySample) *float64
	print           func(any) string
}

func columns() []column {
	return []column{
		{"lag", "Lag", "seconds", func(s api.HistorySample) *float64 { return s.LagSeconds }, durationOf},
		{"behind", "Log that is not applied", "bytes", func(s api.HistorySample) *float64 {
			if s.LagBytes == nil {
				return nil
			}
			n := float64(*s.LagBytes)
			return &n
		}, sizeOf},
		{"transactions", "Transactions applied", "per second", func(s api.HistorySample) *float64 { return s.TransactionsPerSecond }, rateOf},
		{"bytes", "Change data", "bytes per second", func(s api.HistorySample) *float64 {
			if s.BytesPerSecond != nil {
				return s.BytesPerSecond
			}
			return s.SeedBytesPerSecond
		}, sizeOf},
	}
}

// rowSpan is how much of a chart one row of its numbers sums up.
const rowSpan = 300

// figures are the charts of a history.
func figures(h api.History) []figure {
	var list []figure
	for _, c := range columns() {
		f := figure{ID: c.id, Title: c.title, Unit: c.unit, Now: unknown}
		var values []float64
		from := int64(-1)
		flush := func() {
			if len(values) > 0 {
				f.Known = true
				sum := 0.0
				for _, v := range values {
					sum += v
				}
				f.Rows = append(f.Rows, figureRow{From: clock(from), Least: c.print(slices.Min(values)), Average: c.print(sum / float64(len(values))), Most: c.print(slices.Max(values))})
			}
			values = nil
		}
		for i, s := range h.Samples {
			if span := s.At.Unix() / rowSpan * rowSpan; span != from {
				flush()
				from = span
			}
			v := c.of(s)
			if v != nil {
				values = append(values, *v)
			}
			if i == len(h.Samples)-1 && v != nil {
				f.Now = c.print(*v)
			}
		}
		flush()
		slices.Reverse(f.Rows)
		list = append(list, f)
	}
	return list
}

// linkHistory is what a link's charts are drawn of: the times in seconds, and the values of
// each chart, null for what was not known. Where samples are missing there is a gap.
func linkHistory(x *exchange) error {
	h, err := x.agent.History(x.ctx(), x.r.PathValue("name"), chartSeconds)
	if err != nil {
		return err
	}
	out := struct {
		At     []float64             `json:"at"`
		Values map[string][]*float64 `json:"values"`
	}{At: []float64{}, Values: map[string][]*float64{}}
	all := columns()
	for _, c := range all {
		out.Values[c.id] = []*float64{}
	}
	var before float64
	for _, s := range h.Samples {
		at := float64(s.At.UnixMilli()) / 1000
		if before > 0 && at-before > 3*h.EverySeconds {
			out.At = append(out.At, before+h.EverySeconds)
			for _, c := range all {
				out.Values[c.id] = append(out.Values[c.id], nil)
			}
		}
		before = at
		out.At = append(out.At, at)
		for _, c := range all {
			out.Values[c.id] = append(out.Values[c.id], c.of(s))
		}
	}
	x.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(x.w).Encode(out)
}

// ofLink shows a page of a link that needs one more answer.
func ofLink[T any](x *exchange, name, title string, live bool, ask func(link string) (T, error)) error {
	l, err := x.agent.Link(x.ctx(), x.r.PathValue("name"))
	if err != nil {
		return err
	}
	d, err := ask(l.Name)
	var e *api.Error
	if err != nil {
		e = x.explained(err)
	}
	return x.show(name, page{Title: l.Name + ": " + title, Nav: "links", Live: live, Error: e, D: map[string]any{"Link": l, "D": d}})
}

func showAudit(x *exchange) error {
	return ofLink(x, "audit", "audit", true, func(name string) (api.AuditReport, error) { return x.agent.Audit(x.ctx(), name) })
}

func showVerify(x *exchange) error {
	return ofLink(x, "verify", "compare", true, func(name string) (*api.Verification, error) {
		v, err := x.agent.Verification(x.ctx(), name)
		if err != nil && problem.Kind(x.explained(err).Kind) == problem.NotFound {
			return nil, nil // there was none yet
		}
		return &v, err
	})
}

func showSettings(x *exchange) error {
	return ofLink(x, "settings", "settings", false, func(string) (struct{}, error) { return struct{}{}, nil })
}

func showRoles(x *exchange) error {
	return ofLink(x, "roles", "roles", false, func(name string) (api.LinkRoles, error) { return x.agent.LinkRoles(x.ctx(), name) })
}

func showUncarried(x *exchange) error {
	return ofLink(x, "uncarried", "what is not carried", false, func(name string) (api.Uncarried, error) { return x.agent.Uncarried(x.ctx(), name) })
}

func confirmDelete(x *exchange) error {
	return ofLink(x, "delete", "delete", false, func(string) (any, error) { return nil, nil })
}

func deleteLink(x *exchange) error {
	name := x.r.PathValue("name")
	if x.r.PostForm.Get("confirm") != name {
		return errNotConfirmed
	}
	r, err := x.agent.DeleteLink(x.ctx(), name, x.r.PostForm.Get("force") != "")
	if err != nil {
		return err
	}
	return x.show("deleted", page{Title: "Link deleted", Nav: "links", D: r})
}

// number reads a number of a form, nil for an empty field.
func number(form url.Values, name string) (*int64, error) {
	text := strings.TrimSpace(form.Get(name))
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: name + " is not a whole number"}
	}
	return &n, nil
}

const megabyte = 1 << 20

// megabytes is number for a field that is in megabytes.
func megabytes(form url.Values, name string) (*int64, error) {
	n, err := number(form, name)
	if n != nil {
		*n *= megabyte
	}
	return n, err
}

func setLink(x *exchange) error {
	form, name := x.r.PostForm, x.r.PathValue("name")
	l, err := x.agent.Link(x.ctx(), name)
	if err != nil {
		return err
	}
	in := api.SetLink{}
	if m := api.Mode(form.Get("mode")); m != l.Mode {
		in.Mode = m
	}
	timeout, err := number(form, "syncTimeout")
	if err != nil {
		return err
	}
	if (in.Mode == api.Sync || l.Mode == api.Sync && in.Mode == "") && timeout != nil && (l.Sync == nil || l.Sync.TimeoutSeconds != *timeout) {
		in.SyncTimeoutSeconds = timeout
	}
	if v := strings.TrimSpace(form.Get("onConflict")); v != cmp.Or(l.OnConflict, "wait") {
		in.OnConflict = v
	}
	if v := strings.TrimSpace(form.Get("onIsolation")); v != cmp.Or(l.OnIsolation, "serve") {
		in.OnIsolation = v
	}
	if in.AuditRate, err = megabytes(form, "auditRate"); err != nil {
		return err
	}
	if l.Audit != nil && in.AuditRate != nil && *in.AuditRate/megabyte == l.Audit.RateBytesPerSecond/megabyte {
		in.AuditRate = nil
	}
	if in.MaxRate, err = megabytes(form, "maxRate"); err != nil {
		return err
	}
	if in.MaxRate != nil && *in.MaxRate/megabyte == l.MaxRate/megabyte {
		in.MaxRate = nil
	}
	if _, err := x.agent.SetLink(x.ctx(), name, in); err != nil {
		return err
	}
	return x.done(x.r.URL.Path, "set")
}

// actOnLink does what a button of a link's page says.
func actOnLink(x *exchange) error {
	name, form := x.r.PathValue("name"), x.r.PostForm
	to := Base + "links/" + url.PathEscape(name)
	var err error
	var what string
	switch form.Get("act") {
	case "suspend":
		_, err = x.agent.Suspend(x.ctx(), name)
		what = "suspended"
	case "resume":
		_, err = x.agent.Resume(x.ctx(), name)
		what = "resumed"
	case "repair":
		_, err = x.agent.ResumeWithRepair(x.ctx(), name)
		what = "repairing"
	case "skip":
		_, err = x.agent.ResumeSkipping(x.ctx(), name)
		what = "skipped"
	case "audit":
		_, err = x.agent.BeginAudit(x.ctx(), name)
		to, what = to+"/audit", "auditing"
	case "verify":
		_, err = x.agent.Verify(x.ctx(), name, api.Verify{Repair: form.Get("repair") != "", Values: form.Get("values") != ""})
		to, what = to+"/verify", "verifying"
	case "cancel-verify":
		_, err = x.agent.CancelVerification(x.ctx(), name)
		to, what = to+"/verify", "cancelled"
	case "roles":
		_, err = x.agent.BringRoles(x.ctx(), name, api.BringRoles{WithPasswords: form.Get("passwords") != ""})
		to, what = to+"/roles", "brought"
	case "objects":
		_, err = x.agent.LargeObjects(x.ctx(), name, api.LargeObjectsRequest{Now: true})
		what = "objects"
	case "discard":
		if form.Get("confirm") != name {
			return errNotConfirmed
		}
		_, err = x.agent.DiscardLost(x.ctx(), name, 0)
		to, what = to+"/lost", "discarded"
	default:
		return errNothingToDo
	}
	if err != nil {
		return err
	}
	return x.done(to, what)
}

func showLost(x *exchange) error {
	q := x.r.URL.Query()
	return ofLink(x, "lost", "lost transactions", false, func(name string) (any, error) {
		lost, err := x.agent.Lost(x.ctx(), name)
		d := struct {
			api.Lost
			Epoch, After int64
			SQL          bool
			Rows         *api.LostPage
		}{Lost: lost}
		if err != nil || len(lost.Partings) == 0 {
			return d, err
		}
		d.Epoch, _ = strconv.ParseInt(q.Get("epoch"), 10, 64)
		d.After, _ = strconv.ParseInt(q.Get("after"), 10, 64)
		d.SQL = q.Get("sql") != ""
		if d.Epoch == 0 {
			d.Epoch = lost.Partings[len(lost.Partings)-1].Epoch
		}
		i := slices.IndexFunc(lost.Partings, func(p api.Parting) bool { return p.Epoch == d.Epoch })
		if i < 0 || lost.Partings[i].State == api.PartingUnreadable || lost.Partings[i].State == api.PartingDiscarded || !x.who.Operator {
			return d, nil
		}
		rows, err := x.agent.LostPage(x.ctx(), name, d.Epoch, max(d.After, 0), d.SQL)
		d.Rows = &rows
		return d, err
	})
}
