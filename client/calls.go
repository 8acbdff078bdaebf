package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
)

// Agent describes the agent itself and its instance.
func (c *Client) Agent(ctx context.Context) (out api.Agent, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/agent", nil, &out)
}

// Events returns a page of what happened, as the agent saw it. With a wait it may take so
// long.
func (c *Client) Events(ctx context.Context, q api.EventQuery) (out api.EventPage, err error) {
	v := url.Values{}
	put := func(name, value string) {
		if value != "" && value != "0" && value != "false" {
			v.Set(name, value)
		}
	}
	put("after", strconv.FormatInt(q.After, 10))
	put("newest", strconv.FormatBool(q.Newest))
	put("limit", strconv.Itoa(q.Limit))
	put("link", q.Link)
	put("peer", q.Peer)
	put("kind", strings.Join(q.Kinds, ","))
	for name, at := range map[string]*time.Time{"since": q.Since, "until": q.Until} {
		if at != nil {
			put(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	put("wait", strconv.Itoa(q.Wait))
	path := "/v1/events"
	if len(v) > 0 {
		path += "?" + v.Encode()
	}
	return out, c.call(ctx, http.MethodGet, path, nil, &out)
}

// SeedingTables tells how far each table of a link's first copy is.
func (c *Client) SeedingTables(ctx context.Context, name string) (out api.SeedingTables, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/links/"+url.PathEscape(name)+"/seeding", nil, &out)
}

// Uncarried lists what is not carried to the other side of a link, and is to be set up again
// where the primary is.
func (c *Client) Uncarried(ctx context.Context, name string) (out api.Uncarried, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/links/"+url.PathEscape(name)+"/uncarried", nil, &out)
}

// RotateKey makes a new key for the agent. The old one stays valid until every
// peer has the new one.
func (c *Client) RotateKey(ctx context.Context) (out api.Agent, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/agent/rotate", nil, &out)
}

// ExportPeer returns what another agent needs to add this one.
func (c *Client) ExportPeer(ctx context.Context) (out api.PeerExport, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/agent/export", nil, &out)
}

// Peers lists the agents that this one trusts, by name.
func (c *Client) Peers(ctx context.Context) (out []api.Peer, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/peers", nil, &out)
}

// Invite makes an invitation that ends after ttl; 0 means the agent's default. Who joins
// by it gets the grants.
func (c *Client) Invite(ctx context.Context, ttl time.Duration, grants ...api.Grant) (out api.Invitation, err error) {
	in := api.Invite{TTLSeconds: int64(ttl / time.Second), Grants: grants}
	return out, c.call(ctx, http.MethodPost, "/v1/invitations", in, &out)
}

// Invitations lists the invitations that nobody has used yet.
func (c *Client) Invitations(ctx context.Context) (out []api.OpenInvitation, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/invitations", nil, &out)
}

// Uninvite takes back an invitation that nobody has used.
func (c *Client) Uninvite(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/invitations/"+url.PathEscape(id), nil, nil)
}

// Join accepts another agent's invitation and returns that agent as a peer.
func (c *Client) Join(ctx context.Context, in api.JoinRequest) (out api.Peer, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/peers/join", in, &out)
}

// AddPeer trusts another agent by its certificate.
func (c *Client) AddPeer(ctx context.Context, in api.AddPeer) (out api.Peer, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/peers", in, &out)
}

// SetPeer trusts another key of a peer, or dials it elsewhere.
func (c *Client) SetPeer(ctx context.Context, name string, in api.SetPeer) (out api.Peer, err error) {
	return out, c.call(ctx, http.MethodPatch, "/v1/peers/"+url.PathEscape(name), in, &out)
}

// RemovePeer ends the trust in a peer. A peer that links depend on is refused, unless
// it is forced.
func (c *Client) RemovePeer(ctx context.Context, name string, force bool) error {
	path := "/v1/peers/" + url.PathEscape(name)
	if force {
		path += "?force=true"
	}
	return c.call(ctx, http.MethodDelete, path, nil, nil)
}

// GrantPeer lets a peer ask for more.
func (c *Client) GrantPeer(ctx context.Context, name string, grants ...api.Grant) (out api.Peer, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/peers/"+url.PathEscape(name)+"/grants", api.PeerGrants{Grants: grants}, &out)
}

// RevokePeer lets a peer ask for less, from its next request on.
func (c *Client) RevokePeer(ctx context.Context, name string, grants ...api.Grant) (out api.Peer, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/peers/"+url.PathEscape(name)+"/revoke", api.PeerGrants{Grants: grants}, &out)
}

// Check says what stands in the way of linking a database.
func (c *Client) Check(ctx context.Context, in api.CheckRequest) (out api.Check, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/check", in, &out)
}

// Databases lists the databases of the instance, by name.
func (c *Client) Databases(ctx context.Context) (out []api.Database, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/databases", nil, &out)
}

// CopyDatabase begins to make an independent copy of a database, and returns at once.
func (c *Client) CopyDatabase(ctx context.Context, in api.CopyDatabase) (out api.DatabaseCopy, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/copies", in, &out)
}

// RestoreDatabase begins to restore a database to a moment, and returns at once. What it returns is one of Copies.
func (c *Client) RestoreDatabase(ctx context.Context, in api.RestoreDatabase) (out api.DatabaseCopy, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/restores", in, &out)
}

// Copies lists the copies since the agent was started, the newest first.
func (c *Client) Copies(ctx context.Context) (out []api.DatabaseCopy, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/copies", nil, &out)
}

// Copy returns one of them.
func (c *Client) Copy(ctx context.Context, id string) (out api.DatabaseCopy, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/copies/"+url.PathEscape(id), nil, &out)
}

// CancelCopy ends a copy, and returns when nothing of it is left.
func (c *Client) CancelCopy(ctx context.Context, id string) (out api.DatabaseCopy, err error) {
	return out, c.call(ctx, http.MethodDelete, "/v1/copies/"+url.PathEscape(id), nil, &out)
}

// Members lists the members of the instance, and who works the links.
func (c *Client) Members(ctx context.Context) (out api.Members, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/members", nil, &out)
}

// SetMembers changes how the members work together.
func (c *Client) SetMembers(ctx context.Context, in api.SetMembers) (out api.Members, err error) {
	return out, c.call(ctx, http.MethodPatch, "/v1/members", in, &out)
}

// InviteMember makes a token with which one other host becomes a member.
func (c *Client) InviteMember(ctx context.Context, in api.InviteMember) (out api.MemberInvitation, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/members/invitations", in, &out)
}

// RemoveMember takes a member out of the instance.
func (c *Client) RemoveMember(ctx context.Context, name string) (out api.Members, err error) {
	return out, c.call(ctx, http.MethodDelete, "/v1/members/"+url.PathEscape(name), nil, &out)
}

// Instance describes the instance, and of a managed one its backups.
func (c *Client) Instance(ctx context.Context) (out api.Instance, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/instance", nil, &out)
}

// SetInstance changes what is not nil of a managed instance's size. It takes as long as a restart of the server where
// one is asked for.
func (c *Client) SetInstance(ctx context.Context, in api.SetInstance) (out api.InstanceChange, err error) {
	return out, c.call(ctx, http.MethodPatch, "/v1/instance", in, &out)
}

// UpdateInstance restarts the servers of a managed instance beside which a newer minor release is installed. It takes as long as they
// need to come back, one after the other; when ctx ends before, those that are left stay as they are.
func (c *Client) UpdateInstance(ctx context.Context) (out api.InstanceUpdate, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/instance/update", nil, &out)
}

// Usage tells the hours of a managed instance in a month, such as "2026-11"; in the present one for "".
func (c *Client) Usage(ctx context.Context, month string) (out api.Usage, err error) {
	path := "/v1/usage"
	if month != "" {
		path += "?month=" + url.QueryEscape(month)
	}
	return out, c.call(ctx, http.MethodGet, path, nil, &out)
}

// Backups lists the backups, and what is due, restorable and wrong.
func (c *Client) Backups(ctx context.Context) (out api.Backups, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/backups", nil, &out)
}

// BackupNow begins a backup and returns at once; BackupTask tells how far it is.
func (c *Client) BackupNow(ctx context.Context, in api.BackupRequest) (out api.BackupTask, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/backups", in, &out)
}

// VerifyBackups begins to read everything in the repository and returns at once.
func (c *Client) VerifyBackups(ctx context.Context) (out api.BackupTask, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/backups/verify", nil, &out)
}

// TestBackups begins to restore the newest backup of each repository on a temporary server, and to read all of it, and returns at once.
func (c *Client) TestBackups(ctx context.Context) (out api.BackupTask, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/backups/test", nil, &out)
}

// BackupTask describes what BackupNow, VerifyBackups or TestBackups began.
func (c *Client) BackupTask(ctx context.Context, number int64) (out api.BackupTask, err error) {
	return out, c.call(ctx, http.MethodGet, fmt.Sprintf("/v1/backups/tasks/%d", number), nil, &out)
}

// BackupPolicy says which backups are kept, and where.
func (c *Client) BackupPolicy(ctx context.Context) (out api.BackupPolicy, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/backups/policy", nil, &out)
}

// SetBackupPolicy changes what is not nil.
func (c *Client) SetBackupPolicy(ctx context.Context, in api.SetBackupPolicy) (out api.BackupPolicy, err error) {
	return out, c.call(ctx, http.MethodPatch, "/v1/backups/policy", in, &out)
}

// ExportBackups returns what a restore elsewhere needs beside the repository. It holds the key, a secret.
func (c *Client) ExportBackups(ctx context.Context) (out api.BackupExport, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/backups/export", nil, &out)
}

// RestorableDatabases lists the databases that can be restored, dropped ones included.
func (c *Client) RestorableDatabases(ctx context.Context) (out []api.RestorableDatabase, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/databases/restorable", nil, &out)
}

// Links lists the links of the agent, by name.
func (c *Client) Links(ctx context.Context) (out []api.Link, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/links", nil, &out)
}

// Link returns one link as this side sees it.
func (c *Client) Link(ctx context.Context, name string) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name), nil, &out)
}

// History says what a link did in the last seconds, or as long as it is kept when they are 0.
func (c *Client) History(ctx context.Context, name string, seconds float64) (out api.History, err error) {
	return out, c.call(ctx, http.MethodGet, fmt.Sprintf("%s/history?seconds=%g", linkPath(name), seconds), nil, &out)
}

// CreateLink creates a link and returns it, before it is seeded.
func (c *Client) CreateLink(ctx context.Context, in api.CreateLink) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/links", in, &out)
}

// SetLink changes settings of a link, on both sides.
func (c *Client) SetLink(ctx context.Context, name string, in api.SetLink) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPatch, linkPath(name), in, &out)
}

// LargeObjects brings a link's large objects, or sets how often that is done.
func (c *Client) LargeObjects(ctx context.Context, name string, in api.LargeObjectsRequest) (out api.LargeObjectsResult, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/large-objects", in, &out)
}

// Suspend stops a link until Resume; the primary keeps its log meanwhile.
func (c *Client) Suspend(ctx context.Context, name string) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/suspend", nil, &out)
}

// Resume lets a suspended link go on, and one that a problem stopped try again.
func (c *Client) Resume(ctx context.Context, name string) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/resume", nil, &out)
}

// ResumeWithRepair lets a broken link go on whose stream cannot: the twin is compared
// with the primary, what differs is copied, and the stream begins anew.
func (c *Client) ResumeWithRepair(ctx context.Context, name string) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/repair", nil, &out)
}

// ResumeSkipping lets a link go on without the schema change at which it stands.
func (c *Client) ResumeSkipping(ctx context.Context, name string) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/skip", nil, &out)
}

// Verify begins to compare both sides of a link and returns at once.
func (c *Client) Verify(ctx context.Context, name string, in api.Verify) (out api.Verification, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/verification", in, &out)
}

// Verification returns the verification of a link that is under way, or the last.
func (c *Client) Verification(ctx context.Context, name string) (out api.Verification, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name)+"/verification", nil, &out)
}

// CancelVerification ends the verification under way, and returns when nothing of
// it is left.
func (c *Client) CancelVerification(ctx context.Context, name string) (out api.Verification, err error) {
	return out, c.call(ctx, http.MethodDelete, linkPath(name)+"/verification", nil, &out)
}

// Audit describes the audit of a link, which compares both sides in the background.
func (c *Client) Audit(ctx context.Context, name string) (out api.AuditReport, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name)+"/audit", nil, &out)
}

// BeginAudit has a pass of the audit begin at once, and returns.
func (c *Client) BeginAudit(ctx context.Context, name string) (out api.AuditReport, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/audit", nil, &out)
}

// Lost says what forced failovers of a link have left behind.
func (c *Client) Lost(ctx context.Context, name string) (out api.Lost, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name)+"/lost", nil, &out)
}

// LostPage returns the changes of a parting behind the one with the number after,
// with their values or, with sql, with statements that do them again.
func (c *Client) LostPage(ctx context.Context, name string, epoch, after int64, sql bool) (out api.LostPage, err error) {
	path := fmt.Sprintf("%s/lost/%d?after=%d&sql=%t", linkPath(name), epoch, after, sql)
	return out, c.call(ctx, http.MethodGet, path, nil, &out)
}

// DiscardLost forgets what was lost at the parting with the epoch, or at all when
// it is 0.
func (c *Client) DiscardLost(ctx context.Context, name string, epoch int64) (out api.Lost, err error) {
	return out, c.call(ctx, http.MethodDelete, fmt.Sprintf("%s/lost?epoch=%d", linkPath(name), epoch), nil, &out)
}

// Failover has the sides of a link change places. A planned failover has only begun
// when it returns, a forced one is done.
func (c *Client) Failover(ctx context.Context, name string, in api.FailoverRequest) (out api.FailoverProgress, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/failover", in, &out)
}

// FailoverPlan says what a change of places of a link would meet, and changes nothing.
func (c *Client) FailoverPlan(ctx context.Context, name string, in api.FailoverPlanRequest) (out api.FailoverPlan, err error) {
	path := fmt.Sprintf("%s/failover/plan?type=%s&cutover=%t&drainSeconds=%g", linkPath(name), in.Type, in.Cutover, in.DrainSeconds)
	return out, c.call(ctx, http.MethodGet, path, nil, &out)
}

// FailoverProgress returns the failover of a link that is under way, or the last.
func (c *Client) FailoverProgress(ctx context.Context, name string) (out api.FailoverProgress, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name)+"/failover", nil, &out)
}

// FailoverTogether has the sides of several links change places as one. It has only begun
// when it returns; asked again for the same links, it describes the one under way.
func (c *Client) FailoverTogether(ctx context.Context, in api.FailoversRequest) (out api.Failovers, err error) {
	if in.Links == nil {
		in.Links = []string{}
	}
	return out, c.call(ctx, http.MethodPost, "/v1/failovers", in, &out)
}

// Failovers describes the failover of several links that the agent drives, or the last.
func (c *Client) Failovers(ctx context.Context) (out api.Failovers, err error) {
	return out, c.call(ctx, http.MethodGet, "/v1/failovers", nil, &out)
}

// CancelFailovers gives up the failover of several links that is under way, unless it is
// decided.
func (c *Client) CancelFailovers(ctx context.Context) (out api.Failovers, err error) {
	return out, c.call(ctx, http.MethodDelete, "/v1/failovers", nil, &out)
}

// CancelFailover gives up the failover under way, unless it is decided.
func (c *Client) CancelFailover(ctx context.Context, name string) (out api.FailoverProgress, err error) {
	return out, c.call(ctx, http.MethodDelete, linkPath(name)+"/failover", nil, &out)
}

// LinkRoles compares the roles of both instances that a link's database needs.
func (c *Client) LinkRoles(ctx context.Context, name string) (out api.LinkRoles, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name)+"/roles", nil, &out)
}

// BringRoles gives roles on the secondary what they have on the primary.
func (c *Client) BringRoles(ctx context.Context, name string, in api.BringRoles) (out api.LinkRoles, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/roles", in, &out)
}

// RejoinPlan says what it takes to make a former primary a twin again.
func (c *Client) RejoinPlan(ctx context.Context, name string) (out api.RejoinPlan, err error) {
	return out, c.call(ctx, http.MethodGet, linkPath(name)+"/rejoin", nil, &out)
}

// Rejoin makes a former primary a twin again, and returns when that has begun.
func (c *Client) Rejoin(ctx context.Context, name string, in api.Rejoin) (out api.Link, err error) {
	return out, c.call(ctx, http.MethodPost, linkPath(name)+"/rejoin", in, &out)
}

// DeleteLink removes a link from both sides, or, with force, from this side
// without asking the peer.
func (c *Client) DeleteLink(ctx context.Context, name string, force bool) (out api.DeleteResult, err error) {
	path := linkPath(name)
	if force {
		path += "?force=true"
	}
	return out, c.call(ctx, http.MethodDelete, path, nil, &out)
}

func linkPath(name string) string { return "/v1/links/" + url.PathEscape(name) }
