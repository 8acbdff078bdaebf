package api

import "time"

// Members are the hosts that are one instance.
type Members struct {
	Tier       string    `json:"tier" enum:"single,business-critical" doc:"Whether the instance has members; single is one server, or a cluster that somebody else runs"`
	Self       string    `json:"self" doc:"The member that answers"`
	Leader     string    `json:"leader" doc:"The member whose server takes writes; empty where none is known"`
	Serves     string    `json:"serves" doc:"The member whose agent works the links, or where the process runs that does; empty where none is known"`
	Durability string    `json:"durability,omitempty" enum:"strict,available" doc:"Whether commits always wait for a standby, or go on without one; absent where it is not known"`
	Strict     bool      `json:"strict" doc:"Whether commits wait now for a standby whatever happens: with fewer than three servers they do not"`
	Members    []Member  `json:"members" nullable:"false" doc:"The members, by name"`
	Problems   []Problem `json:"problems" nullable:"false" doc:"What is wrong now with the members"`
}

// Member is one of them.
type Member struct {
	Name      string `json:"name" doc:"Name of the member"`
	Place     string `json:"place" doc:"Host and directory of its agent"`
	Address   string `json:"address" doc:"Where its server takes sessions, as host:port; empty of a witness"`
	Endpoint  string `json:"endpoint" doc:"Where peers reach its agent; empty of a witness"`
	Role      string `json:"role" enum:"leader,sync_standby,replica,witness,unknown" doc:"What it does: the server that takes writes, the standby that commits wait for, another one, or only to vote"`
	State     string `json:"state" doc:"State of its server, as Patroni says; empty where it is not known"`
	Timeline  int    `json:"timeline" doc:"Timeline of its server; 0 where it is not known"`
	Lag       *int64 `json:"lagBytes,omitempty" doc:"How far its server is behind the leader; absent where it is not known"`
	Answers   bool   `json:"answers" doc:"Whether its programs answer"`
	Votes     bool   `json:"votes" doc:"Whether it has a vote"`
	Version   string `json:"version,omitempty" example:"15.18" doc:"Release that its server runs; absent of a witness, and where it is not known"`
	Installed string `json:"installed,omitempty" example:"15.20" doc:"Release of the programs beside it, which it runs after its next start; absent of a witness, and where it is not known"`
}

// InviteMember asks for an invitation of a member.
type InviteMember struct {
	TTLSeconds int64 `json:"ttlSeconds,omitempty" minimum:"0" doc:"How long it is valid; 0 for an hour"`
}

// MemberInvitation is one. The token lets its bearer have all that the instance has.
type MemberInvitation struct {
	Token   string    `json:"token" doc:"For twinspan member join; a secret"`
	Expires time.Time `json:"expires" doc:"When it ends"`
}

// SetMembers changes how the members work together.
type SetMembers struct {
	Durability string `json:"durability" enum:"strict,available" doc:"strict: commits always wait for a standby; available: they go on without one"`
}
