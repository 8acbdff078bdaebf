package agenttest

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/api"
)

// joined are the members; of an agent that was told none, its instance is one server.
func (a *Agent) joined() api.Members {
	out := a.Joined
	if out.Tier == "" {
		out.Tier = "single"
	}
	return out
}

// Members implements httpapi.Agent.
func (a *Agent) Members(context.Context) (api.Members, error) {
	return a.joined(), a.enter("Members")
}

// SetMembers implements httpapi.Agent.
func (a *Agent) SetMembers(_ context.Context, in api.SetMembers) (api.Members, error) {
	out := a.joined()
	out.Durability = in.Durability
	return out, a.enter("SetMembers", in)
}

// InviteMember implements httpapi.Agent.
func (a *Agent) InviteMember(_ context.Context, in api.InviteMember) (api.MemberInvitation, error) {
	return api.MemberInvitation{Token: "twinspan1:member", Expires: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}, a.enter("InviteMember", in)
}

// RemoveMember implements httpapi.Agent.
func (a *Agent) RemoveMember(_ context.Context, name string) (api.Members, error) {
	return a.joined(), a.enter("RemoveMember", name)
}
