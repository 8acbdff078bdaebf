package httpapi

import (
	"context"
	"net/http"

	"github.com/twinspan/twinspan/api"
)

// members puts the operations on the members of an instance on the interface.
func (r *routes) members() {
	whole := func(m api.Members, err error) (api.Members, error) {
		m.Members, m.Problems = list(m.Members), list(m.Problems)
		return m, err
	}
	add(r, "members", http.MethodGet, "/v1/members", "listMembers", "List the members of the instance, and who works the links",
		func(ctx context.Context, _ *none) (api.Members, error) { return whole(r.agent.Members(ctx)) })
	add(r, "members", http.MethodPatch, "/v1/members", "setMembers", "Change how the members work together",
		func(ctx context.Context, in *with[api.SetMembers]) (api.Members, error) {
			return whole(r.agent.SetMembers(ctx, in.Body))
		})
	add(r, "members", http.MethodPost, "/v1/members/invitations", "inviteMember", "Make a token with which one other host becomes a member",
		func(ctx context.Context, in *with[api.InviteMember]) (api.MemberInvitation, error) {
			return r.agent.InviteMember(ctx, in.Body)
		})
	add(r, "members", http.MethodDelete, "/v1/members/{name}", "removeMember", "Take a member out of the instance",
		func(ctx context.Context, in *named) (api.Members, error) {
			return whole(r.agent.RemoveMember(ctx, in.Name))
		})
}
