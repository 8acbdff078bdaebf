package api

import "time"

// Peer is another agent that this one trusts.
type Peer struct {
	Name        string     `json:"name" doc:"Name by which this agent knows it"`
	ID          string     `json:"id" doc:"Its identifier"`
	Endpoint    string     `json:"endpoint" doc:"Address at which this agent dials it; empty when only the other side dials"`
	Fingerprint string     `json:"fingerprint" doc:"SHA-256 of its public key, which is pinned"`
	Expires     time.Time  `json:"expires" doc:"When its certificate ends"`
	Connected   bool       `json:"connected" doc:"Whether the two agents are connected now"`
	ConnectedAt *time.Time `json:"connectedAt" doc:"Since when; null while not connected"`
	Version     string     `json:"version" doc:"Version of its program when last connected"`
	Error       string     `json:"error" doc:"Why the last attempt to connect failed; empty while connected"`
	Links       int        `json:"links" doc:"Number of links with it"`
}

// Invite asks for an invitation.
type Invite struct {
	TTLSeconds int64 `json:"ttlSeconds,omitempty" minimum:"1" maximum:"604800" doc:"How long the invitation holds; one hour by default, a week at most"`
}

// Invitation lets one other agent become a peer. The token is a secret that
// works once.
type Invitation struct {
	Token       string    `json:"token" doc:"What the other side gives to peer join"`
	Endpoint    string    `json:"endpoint" doc:"Where the other side will dial"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of this agent's public key, which is part of the token"`
	Expires     time.Time `json:"expires" doc:"When the invitation ends"`
}

// JoinRequest accepts another agent's invitation.
type JoinRequest struct {
	Token string `json:"token" minLength:"1" doc:"What peer invite printed on the other side"`
}

// PeerExport is what another agent needs to add this one by hand. Nothing in it
// is secret.
type PeerExport struct {
	Name        string `json:"name" doc:"Name of this agent"`
	ID          string `json:"id" doc:"Identifier of this agent"`
	Endpoint    string `json:"endpoint" doc:"Address at which peers reach it"`
	Fingerprint string `json:"fingerprint" doc:"SHA-256 of its public key"`
	Certificate string `json:"certificate" doc:"Its certificate, PEM"`
}

// AddPeer trusts another agent by its certificate.
type AddPeer struct {
	Name        string `json:"name" minLength:"1" maxLength:"63" doc:"Name by which this agent will know it"`
	Endpoint    string `json:"endpoint,omitempty" doc:"Address at which to dial it, host:port; empty when only the other side dials"`
	Certificate string `json:"certificate" minLength:"1" doc:"Its certificate, PEM"`
}
