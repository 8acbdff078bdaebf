// Package httpapi serves an agent's REST interface: over the Unix socket in its
// directory, where whoever may open the socket may do everything, and over TCP
// with TLS and a token. It knows the agent by the interface Agent alone.
package httpapi

import (
	"context"

	"github.com/twinspan/twinspan/api"
)

// Agent is what is served. All methods are safe for concurrent use, return soon
// unless said otherwise, and return a problem (package problem) when they refuse.
type Agent interface {
	// Info describes the agent and its instance. It does not wait for the server.
	Info(ctx context.Context) (api.Agent, error)

	// Peers lists the trusted agents by name.
	Peers(ctx context.Context) ([]api.Peer, error)
	// Invite makes an invitation; a ttl of 0 means the default.
	Invite(ctx context.Context, in api.Invite) (api.Invitation, error)
	// Invitations lists those that are open; Uninvite takes one back.
	Invitations(ctx context.Context) ([]api.OpenInvitation, error)
	Uninvite(ctx context.Context, id string) error
	// Join dials the agent that a token names and waits for its answer.
	Join(ctx context.Context, in api.JoinRequest) (api.Peer, error)
	// ExportPeer returns what another agent needs to add this one.
	ExportPeer(ctx context.Context) (api.PeerExport, error)
	// AddPeer trusts a certificate.
	AddPeer(ctx context.Context, in api.AddPeer) (api.Peer, error)
	// SetPeer trusts another key of a peer, or dials it elsewhere.
	SetPeer(ctx context.Context, name string, in api.SetPeer) (api.Peer, error)
	// RemovePeer ends the trust; a peer with links is a conflict unless it is forced.
	RemovePeer(ctx context.Context, name string, force bool) error
	// GrantPeer lets a peer do more, RevokePeer less, from its next request on.
	GrantPeer(ctx context.Context, name string, in api.PeerGrants) (api.Peer, error)
	RevokePeer(ctx context.Context, name string, in api.PeerGrants) (api.Peer, error)
	// RotateKey makes a new key, with overlap.
	RotateKey(ctx context.Context) (api.Agent, error)

	// Check looks at a database and, where one is named, at a peer's instance.
	Check(ctx context.Context, in api.CheckRequest) (api.Check, error)
	// Databases lists the databases by name.
	Databases(ctx context.Context) ([]api.Database, error)
	// CopyDatabase begins a copy and returns at once.
	CopyDatabase(ctx context.Context, in api.CopyDatabase) (api.DatabaseCopy, error)
	// RestoreDatabase begins to restore a database and returns at once. It is one of Copies.
	RestoreDatabase(ctx context.Context, in api.RestoreDatabase) (api.DatabaseCopy, error)
	// Copies lists the copies since the agent was started, the newest first.
	Copies(ctx context.Context) ([]api.DatabaseCopy, error)
	// Copy returns one of them.
	Copy(ctx context.Context, id string) (api.DatabaseCopy, error)
	// CancelCopy returns when nothing of it is left.
	CancelCopy(ctx context.Context, id string) (api.DatabaseCopy, error)

	// Members lists the members of the instance; the other three are the affair of the agent that serves.
	Members(ctx context.Context) (api.Members, error)
	SetMembers(ctx context.Context, in api.SetMembers) (api.Members, error)
	InviteMember(ctx context.Context, in api.InviteMember) (api.MemberInvitation, error)
	RemoveMember(ctx context.Context, name string) (api.Members, error)

	// Instance describes the instance, without waiting for the server.
	Instance(ctx context.Context) (api.Instance, error)
	// SetInstance changes the size of a managed instance. With a restart it returns when the server is back.
	SetInstance(ctx context.Context, in api.SetInstance) (api.InstanceChange, error)
	// UpdateInstance restarts the servers beside which a newer release of their major version is installed, and returns when they are back. It
	// stops behind the server under way when ctx ends.
	UpdateInstance(ctx context.Context) (api.InstanceUpdate, error)
	// Usage tells the hours of a month, "2026-11", or of the present one. It asks the server.
	Usage(ctx context.Context, month string) (api.Usage, error)
	// Backups says what is known of the backups, without asking the repository.
	Backups(ctx context.Context) (api.Backups, error)
	// BackupNow, VerifyBackups and TestBackups return at once: BackupTask tells how far what they began is.
	BackupNow(ctx context.Context, in api.BackupRequest) (api.BackupTask, error)
	VerifyBackups(ctx context.Context) (api.BackupTask, error)
	TestBackups(ctx context.Context) (api.BackupTask, error)
	BackupTask(ctx context.Context, number int64) (api.BackupTask, error)
	BackupPolicy(ctx context.Context) (api.BackupPolicy, error)
	SetBackupPolicy(ctx context.Context, in api.SetBackupPolicy) (api.BackupPolicy, error)
	// ExportBackups returns the key of the backups, a secret.
	ExportBackups(ctx context.Context) (api.BackupExport, error)
	// RestorableDatabases lists the databases that can be restored, those that were dropped among them.
	RestorableDatabases(ctx context.Context) ([]api.RestorableDatabase, error)

	// Links lists the links by name. It answers from memory: metrics ask often.
	Links(ctx context.Context) ([]api.Link, error)
	// History returns how a link stood in the last seconds, or as long as it is kept when
	// they are 0.
	History(ctx context.Context, name string, seconds float64) (api.History, error)
	// Link returns one link, from memory.
	Link(ctx context.Context, name string) (api.Link, error)
	// CreateLink returns as soon as the link exists durably on both sides.
	CreateLink(ctx context.Context, in api.CreateLink) (api.Link, error)
	// SetLink returns as soon as the settings are durable on this side.
	SetLink(ctx context.Context, name string, in api.SetLink) (api.Link, error)
	// Suspend and Resume return as soon as the wish is durable: Link.Suspended
	// tells it, and a link that was broken is so no more in what Resume returns.
	Suspend(ctx context.Context, name string) (api.Link, error)
	Resume(ctx context.Context, name string) (api.Link, error)
	// ResumeWithRepair resumes a broken link by a comparison, which comes after.
	ResumeWithRepair(ctx context.Context, name string) (api.Link, error)
	// ResumeSkipping resumes a link that stands at a schema change, without that.
	ResumeSkipping(ctx context.Context, name string) (api.Link, error)
	// Verify begins a comparison of both sides and returns at once; one that is under
	// way is a conflict.
	Verify(ctx context.Context, name string, in api.Verify) (api.Verification, error)
	// Verification returns the one under way, or the last.
	Verification(ctx context.Context, name string) (api.Verification, error)
	// CancelVerification returns when nothing of it is left.
	CancelVerification(ctx context.Context, name string) (api.Verification, error)
	// Audit describes the audit of a link; BeginAudit has a pass begin at once, and returns.
	Audit(ctx context.Context, name string) (api.AuditReport, error)
	BeginAudit(ctx context.Context, name string) (api.AuditReport, error)
	// Lost says what forced failovers have left behind, on either side.
	Lost(ctx context.Context, name string) (api.Lost, error)
	// LostPage returns the changes of a parting behind the one with the number after:
	// their values, or, with sql, statements that redo them. A limit of 0 is a default.
	LostPage(ctx context.Context, name string, epoch, after int64, limit int, sql bool) (api.LostPage, error)
	// DiscardLost forgets what was lost at a parting, or, when epoch is 0, at all.
	DiscardLost(ctx context.Context, name string, epoch int64) (api.Lost, error)
	// RejoinPlan says what a rejoin takes.
	RejoinPlan(ctx context.Context, name string) (api.RejoinPlan, error)
	// Rejoin returns as soon as the rejoin has begun.
	Rejoin(ctx context.Context, name string, in api.Rejoin) (api.Link, error)
	// LargeObjects returns when the pass that was asked for is complete.
	LargeObjects(ctx context.Context, name string, in api.LargeObjectsRequest) (api.LargeObjectsResult, error)
	// Failover begins a planned change of places and returns at once; a forced one is
	// done when it returns.
	Failover(ctx context.Context, name string, in api.FailoverRequest) (api.FailoverProgress, error)
	// FailoverPlan says what a change of places would meet, and changes nothing.
	FailoverPlan(ctx context.Context, name string, in api.FailoverPlanRequest) (api.FailoverPlan, error)
	// Uncarried says what has to be set up again on another side that is, or becomes, the primary.
	Uncarried(ctx context.Context, name string) (api.Uncarried, error)
	// FailoverProgress returns the one under way, or the last.
	FailoverProgress(ctx context.Context, name string) (api.FailoverProgress, error)
	// CancelFailover gives up the one under way, unless it is decided.
	CancelFailover(ctx context.Context, name string) (api.FailoverProgress, error)
	// FailoverTogether has several links change places as one and returns at once; asked
	// again for the same links, it describes the one under way.
	FailoverTogether(ctx context.Context, in api.FailoversRequest) (api.Failovers, error)
	// Failovers returns the one of several links under way, or the last.
	Failovers(ctx context.Context) (api.Failovers, error)
	// CancelFailovers gives up the one under way, unless it is decided.
	CancelFailovers(ctx context.Context) (api.Failovers, error)
	// SeedingTables tells how far each table of a link's first copy is.
	SeedingTables(ctx context.Context, name string) (api.SeedingTables, error)
	// LinkRoles compares the roles of both instances that a link's database needs.
	LinkRoles(ctx context.Context, name string) (api.LinkRoles, error)
	// BringRoles gives the secondary's what they lack, and compares again.
	BringRoles(ctx context.Context, name string, in api.BringRoles) (api.LinkRoles, error)
	// Events returns a page of what happened. It waits for it as long as the query says.
	Events(ctx context.Context, q api.EventQuery) (api.EventPage, error)
	// Did keeps that somebody asked for a change, and how that ended. It returns at once.
	Did(e api.Event)
	// DeleteLink returns when nothing of the link is left.
	DeleteLink(ctx context.Context, name string, force bool) (api.DeleteResult, error)
}
