package web

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

func showDatabases(x *exchange) error {
	all, err := x.agent.Databases(x.ctx())
	if err != nil {
		return err
	}
	copies, err := x.agent.Copies(x.ctx())
	if err != nil {
		return err
	}
	peers, err := x.agent.Peers(x.ctx())
	if err != nil {
		return err
	}
	instance, err := x.agent.Instance(x.ctx())
	if err != nil {
		return err
	}
	d := map[string]any{"All": all, "Copies": copies, "Peers": peers, "Chosen": x.r.URL.Query().Get("database")}
	if instance.Backups != nil {
		if d["Restorable"], err = x.agent.RestorableDatabases(x.ctx()); err != nil {
			return err
		}
	}
	return x.show("databases", page{Title: "Databases", Nav: "databases", Live: true, D: d})
}

func copyDatabase(x *exchange) error {
	form := x.r.PostForm
	if _, err := x.agent.CopyDatabase(x.ctx(), api.CopyDatabase{Database: form.Get("database"), Name: form.Get("name"), Peer: form.Get("peer")}); err != nil {
		return err
	}
	return x.done(Base+"databases", "copying")
}

// formMoment is how a browser writes a moment; it is UTC, as the form says.
const formMoment = "2006-01-02T15:04:05"

func restoreDatabase(x *exchange) error {
	form := x.r.PostForm
	in := api.RestoreDatabase{Database: form.Get("database"), Name: form.Get("name"), Peer: form.Get("peer"), Deleted: form.Get("deleted") != ""}
	if text := form.Get("at"); text != "" && !in.Deleted {
		if len(text) == len("2006-01-02T15:04") {
			text += ":00"
		}
		at, err := time.Parse(formMoment, text)
		if err != nil {
			return &api.Error{Status: http.StatusBadRequest, Kind: string(problem.Invalid), Code: "request_invalid", Text: "the moment cannot be read", Hint: "write it as 2026-11-30T14:05:00, in UTC"}
		}
		in.At = &at
	}
	if _, err := x.agent.RestoreDatabase(x.ctx(), in); err != nil {
		return err
	}
	return x.done(Base+"databases", "restoring")
}

func cancelCopy(x *exchange) error {
	if _, err := x.agent.CancelCopy(x.ctx(), x.r.PostForm.Get("id")); err != nil {
		return err
	}
	return x.done(Base+"databases", "cancelled")
}

func showBackups(x *exchange) error {
	i, err := x.agent.Instance(x.ctx())
	if err != nil {
		return err
	}
	d := map[string]any{"Instance": i}
	if i.Backups != nil {
		b, err := x.agent.Backups(x.ctx())
		if err != nil {
			return err
		}
		d["Backups"] = b
	}
	return x.show("backups", page{Title: "Backups", Nav: "backups", Live: true, D: d})
}

func actOnBackups(x *exchange) error {
	form := x.r.PostForm
	var err error
	what := "backup"
	switch form.Get("act") {
	case "now":
		_, err = x.agent.BackupNow(x.ctx(), api.BackupRequest{Type: form.Get("type")})
	case "verify":
		_, err = x.agent.VerifyBackups(x.ctx())
		what = "checking"
	case "test":
		_, err = x.agent.TestBackups(x.ctx())
		what = "test restore"
	case "policy":
		what = "policy"
		var days *int64
		if days, err = number(form, "days"); err == nil && days != nil {
			n := int(*days)
			_, err = x.agent.SetBackupPolicy(x.ctx(), api.SetBackupPolicy{RetentionDays: &n})
		}
	default:
		err = errNothingToDo
	}
	if err != nil {
		return err
	}
	return x.done(Base+"backups", what)
}

// peersView is the page of peers. Invitation is one that was made just now.
type peersView struct {
	Peers       []api.Peer
	Open        []api.OpenInvitation
	Invitation  *api.Invitation
	Fingerprint string
}

func showPeers(x *exchange) error { return peersWith(x, nil) }

func peersWith(x *exchange, made *api.Invitation) error {
	peers, err := x.agent.Peers(x.ctx())
	if err != nil {
		return err
	}
	open, err := x.agent.Invitations(x.ctx())
	if err != nil {
		return err
	}
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	return x.show("peers", page{Title: "Peers", Nav: "peers", Live: made == nil, Agent: &agent, D: peersView{peers, open, made, agent.Fingerprint}})
}

// grantOf reads a grant of a form.
func grantOf(form url.Values) api.Grant {
	return api.Grant{Database: form.Get("database"), Direction: form.Get("direction"), Operations: form["operation"]}
}

func actOnPeers(x *exchange) error {
	form := x.r.PostForm
	var err error
	var what string
	switch form.Get("act") {
	case "invite":
		// The answer shows a secret that works once, so it is no page that can be loaded anew.
		made, err := x.agent.Invite(x.ctx(), 0)
		if err != nil {
			return err
		}
		return peersWith(x, &made)
	case "join":
		_, err = x.agent.Join(x.ctx(), api.JoinRequest{Token: strings.TrimSpace(form.Get("token"))})
		what = "joined"
	case "uninvite":
		err = x.agent.Uninvite(x.ctx(), form.Get("id"))
		what = "uninvited"
	case "remove":
		if form.Get("confirm") != form.Get("peer") {
			return errNotConfirmed
		}
		err = x.agent.RemovePeer(x.ctx(), form.Get("peer"), form.Get("force") != "")
		what = "removed"
	case "grant":
		_, err = x.agent.GrantPeer(x.ctx(), form.Get("peer"), grantOf(form))
		what = "granted"
	case "revoke":
		_, err = x.agent.RevokePeer(x.ctx(), form.Get("peer"), grantOf(form))
		what = "revoked"
	default:
		err = errNothingToDo
	}
	if err != nil {
		return err
	}
	return x.done(Base+"peers", what)
}

// eventsOnPage is how many events a page shows.
const eventsOnPage = 50

func showEvents(x *exchange) error {
	q := x.r.URL.Query()
	in := api.EventQuery{Newest: true, Limit: eventsOnPage, Link: q.Get("link"), Peer: q.Get("peer")}
	if k := q.Get("kind"); k != "" {
		in.Kinds = []string{k}
	}
	until, err := time.Parse(time.RFC3339Nano, q.Get("until"))
	if err == nil {
		in.Until = &until
	}
	p, err := x.agent.Events(x.ctx(), in)
	if err != nil {
		return err
	}
	list := make([]api.Event, 0, len(p.Events))
	for i := len(p.Events) - 1; i >= 0; i-- {
		list = append(list, p.Events[i])
	}
	links, _ := x.agent.Links(x.ctx()) // of which events can be chosen
	older := ""
	if len(list) == eventsOnPage && list[len(list)-1].Number > p.First {
		older = list[len(list)-1].At.UTC().Format(time.RFC3339Nano)
	}
	return x.show("events", page{Title: "Events", Nav: "events", Live: in.Until == nil, D: map[string]any{
		"Events": list, "Kinds": api.EventKinds(), "Kind": q.Get("kind"), "Link": q.Get("link"), "Links": links, "Older": older}})
}

// clock writes a moment in seconds since 1970 as a time of day.
func clock(unix int64) string { return time.Unix(unix, 0).UTC().Format("15:04") }
