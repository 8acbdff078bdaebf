package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// errNothingToDo is of a form with a button that no page has.
var errNothingToDo = &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: "the form does not say what to do"}

// instanceView is the page of the instance.
type instanceView struct {
	api.Instance
	Script script
}

func showInstance(x *exchange) error {
	i, err := x.agent.Instance(x.ctx())
	if err != nil {
		return err
	}
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	v := instanceView{Instance: i}
	if i.Size != nil {
		if v.Script, err = ofSize(*i.Size); err != nil {
			return err
		}
	}
	return x.show("instance", page{Title: "Instance", Nav: "instance", Live: true, Agent: &agent, D: v})
}

// gigabyte is the unit of the forms in which a size is changed.
const gigabyte = 1 << 30

// sizeOfForm reads a size. A field that is empty leaves what it is about as it is.
func sizeOfForm(form url.Values) (in api.SetInstance, err error) {
	vcores, err := number(form, "vcores")
	if err != nil {
		return in, err
	}
	if vcores != nil {
		n := int(*vcores)
		in.VCores = &n
	}
	for name, to := range map[string]**int64{"memory": &in.MemoryBytes, "storage": &in.StorageBytes} {
		n, err := number(form, name)
		if err != nil {
			return in, err
		}
		if n == nil {
			continue
		}
		if *n > 1<<33 {
			return in, &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: name + " is too large"}
		}
		*n *= gigabyte
		*to = n
	}
	if b := form.Get("benefit"); b != "" {
		in.Benefit = &b
	}
	in.Restart = form.Get("restart") != ""
	return in, nil
}

func actOnInstance(x *exchange) error {
	form := x.r.PostForm
	switch form.Get("act") {
	case "rotate":
		if _, err := x.agent.RotateKey(x.ctx()); err != nil {
			return err
		}
		return x.done(Base+"instance", "rotated")
	case "size":
		in, err := sizeOfForm(form)
		if err != nil {
			return err
		}
		done, err := x.agent.SetInstance(x.ctx(), in)
		if err != nil {
			return err
		}
		what := "sized"
		switch {
		case done.Restarted:
			what = "restarted"
		case len(done.Pending) > 0:
			what = "pending"
		}
		return x.done(Base+"instance", what)
	}
	return errNothingToDo
}

// membersView is the page of the members. Invitation is one that was made just now.
type membersView struct {
	Of         api.Members
	Invitation *api.MemberInvitation
	Script     script
}

func showMembers(x *exchange) error { return membersWith(x, nil) }

func membersWith(x *exchange, made *api.MemberInvitation) error {
	m, err := x.agent.Members(x.ctx())
	if err != nil {
		return err
	}
	v := membersView{Of: m, Invitation: made}
	if v.Script, err = ofMembers(); err != nil {
		return err
	}
	return x.show("members", page{Title: "Members", Nav: "instance", Live: made == nil, D: v})
}

func actOnMembers(x *exchange) error {
	form := x.r.PostForm
	switch form.Get("act") {
	case "invite":
		// The answer shows a secret that works once, so it is no page that can be loaded anew.
		made, err := x.agent.InviteMember(x.ctx(), api.InviteMember{})
		if err != nil {
			return err
		}
		return membersWith(x, &made)
	case "durability":
		if _, err := x.agent.SetMembers(x.ctx(), api.SetMembers{Durability: form.Get("durability")}); err != nil {
			return err
		}
		return x.done(Base+"members", "durable")
	case "remove":
		if form.Get("confirm") != form.Get("member") {
			return errNotConfirmed
		}
		if _, err := x.agent.RemoveMember(x.ctx(), form.Get("member")); err != nil {
			return err
		}
		return x.done(Base+"members", "out")
	}
	return errNothingToDo
}

// monthForm is how a month is written in an address.
const monthForm = "2006-01"

// usageView is the page of the hours of a month.
type usageView struct {
	Month, Before, Next string // Next is empty in the present month
	Usage               *api.Usage
	Trouble             *api.Error // why there are no hours, as on an instance that is not managed
	Script              script
}

func showUsage(x *exchange) error {
	now := time.Now().UTC()
	v := usageView{Month: now.Format(monthForm)}
	if m := x.r.URL.Query().Get("month"); m != "" {
		v.Month = m
	}
	at, err := time.Parse(monthForm, v.Month)
	if err != nil {
		return &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: "the month cannot be read", Hint: "write it as " + now.Format(monthForm)}
	}
	v.Before = at.AddDate(0, -1, 0).Format(monthForm)
	if next := at.AddDate(0, 1, 0); !next.After(now) {
		v.Next = next.Format(monthForm)
	}
	if u, err := x.agent.Usage(x.ctx(), v.Month); err != nil {
		v.Trouble = x.explained(err)
	} else {
		v.Usage = &u
	}
	v.Script.command("usage", flag("month", v.Month), flag("output", "csv"))
	if err := v.Script.request("GET", "/v1/usage?month="+url.QueryEscape(v.Month), nil); err != nil {
		return err
	}
	return x.show("usage", page{Title: "Usage", Nav: "instance", D: v})
}

// ofSize does the same as the form that changes a size, with the size as it is.
func ofSize(size api.InstanceSize) (s script, err error) {
	in := api.SetInstance{VCores: &size.VCores, MemoryBytes: &size.MemoryBytes, StorageBytes: &size.StorageBytes, Benefit: &size.Benefit, Restart: true}
	vcores, memory, storage := "4", "16GB", "200GB"
	if size.VCores > 0 {
		vcores, memory = strconv.Itoa(size.VCores), inGigabytes(size.MemoryBytes)
	} else {
		n, bytes := 4, int64(16*gigabyte)
		in.VCores, in.MemoryBytes = &n, &bytes
	}
	if size.StorageBytes > 0 {
		storage = inGigabytes(size.StorageBytes)
	} else {
		bytes := int64(200 * gigabyte)
		in.StorageBytes = &bytes
	}
	s.command("instance", "set", flag("vcores", vcores), flag("memory", memory), flag("storage", storage), flag("benefit", size.Benefit), "--restart")
	return s, s.request("PATCH", "/v1/instance", in)
}

func inGigabytes(bytes int64) string {
	if bytes%gigabyte != 0 {
		return fmt.Sprintf("%dMB", bytes/megabyte)
	}
	return fmt.Sprintf("%dGB", bytes/gigabyte)
}

// ofMembers does the same as the page of the members.
func ofMembers() (s script, err error) {
	s.command("member", "list")
	s.command("member", "invite")
	s.command("member", "durability", "strict")
	s.command("member", "remove", "member3")
	for _, c := range []struct {
		method, path string
		body         any
	}{{"GET", "/v1/members", nil}, {"POST", "/v1/members/invitations", api.InviteMember{TTLSeconds: 3600}}, {"PATCH", "/v1/members", api.SetMembers{Durability: "strict"}}, {"DELETE", "/v1/members/member3", nil}} {
		if err := s.request(c.method, c.path, c.body); err != nil {
			return s, err
		}
	}
	return s, nil
}
