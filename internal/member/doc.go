// Package member makes several servers one instance, that of the tier business-critical: on each host a member runs an etcd, with which
// the members agree, and a Patroni, which runs the server and lets another one lead when the leader is gone. The package finds both
// programs, writes their configurations, starts and watches them, and keeps what all members share: the agent's
// identity, its peers and its invitations. It has no consensus of its own. docs/design/0034-members.md has the reasons.
package member
