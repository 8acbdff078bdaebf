package api

import "time"

// Peer is another agent that this one trusts.
type Peer struct {
	Name             string     `json:"name" doc:"Name by which this agent knows it"`
	ID               string     `json:"id" doc:"Its identifier"`
	Endpoint         string     `json:"endpoint" doc:"Address at which this agent dials it; empty when only the other side dials"`
	Fingerprint      string     `json:"fingerprint" doc:"SHA-256 of its public key, which is pinned"`
	Expires          time.Time  `json:"expires" doc:"When its certificate ends"`
	Connected        bool       `json:"connected" doc:"Whether the two agents are connected now"`
	ConnectedAt      *time.Time `json:"connectedAt" doc:"Since when; null while not connected"`
	RoundTripSeconds *float64   `json:"roundTripSeconds,omitempty" doc:"How long a word to it and back takes, smoothed; missing while not connected, and until it is measured"`
	Version          string     `json:"version" doc:"Version of its program when last connected"`
	Error            string     `json:"error" doc:"Why the last attempt to connect failed; empty while connected"`
	Links            int        `json:"links" doc:"Number of links with it"`
	// What it may do, and what it asked for and was refused.
	Grants   []Grant       `json:"grants" nullable:"false" doc:"What it may ask of this agent, beyond a check and a measurement of the network"`
	Requests []PeerRequest `json:"requests" nullable:"false" doc:"What it asked for since this agent started and is not granted"`
}

// Grant lets a peer do things with databases of this agent's instance.
type Grant struct {
	Database   string   `json:"database" minLength:"1" maxLength:"63" doc:"Name of the database on this side, or * for any"`
	Direction  string   `json:"direction" enum:"from-here,to-here" doc:"from-here: the peer may copy it; to-here: the peer may make it a twin of a database of its own"`
	Operations []string `json:"operations" minItems:"1" maxItems:"4" nullable:"false" enum:"link,roles,failover,delete" doc:"link: make a link, copy, follow, compare; roles: make roles on this instance; failover: have the sides change places; delete: remove the link here"`
	Link       string   `json:"link,omitempty" doc:"The link with which the grant came and goes; empty for one that an operator gave"`
}

// SetPeer changes what is known of a peer. What is not given stays.
type SetPeer struct {
	Fingerprint string  `json:"fingerprint,omitempty" maxLength:"100" doc:"SHA-256 of the key that is trusted from now on, in the place of the one of before"`
	Endpoint    *string `json:"endpoint,omitempty" maxLength:"300" doc:"Address at which to dial it, host:port; empty when only the other side dials"`
}

// PeerGrants are grants to give or to take away.
type PeerGrants struct {
	Grants []Grant `json:"grants" minItems:"1" maxItems:"100" nullable:"false" doc:"The grants"`
}

// PeerRequest is something that a peer asked for without being granted it.
type PeerRequest struct {
	Database  string    `json:"database" doc:"The database on this side"`
	Direction string    `json:"direction" doc:"from-here or to-here; empty where either would do"`
	Operation string    `json:"operation" doc:"The operation"`
	At        time.Time `json:"at" doc:"When it was asked for last"`
	Command   string    `json:"command" doc:"The command that grants it"`
}

// Invite asks for an invitation.
type Invite struct {
	TTLSeconds int64   `json:"ttlSeconds,omitempty" minimum:"1" maximum:"604800" doc:"How long the invitation holds; one hour by default, a week at most"`
	Grants     []Grant `json:"grants,omitempty" nullable:"false" maxItems:"100" doc:"What the agent that joins may ask of this one; nothing by default"`
}

// Invitation lets one other agent become a peer. The token is a secret that
// works once.
type Invitation struct {
	Token       string    `json:"token" doc:"What the other side gives to peer join"`
	Endpoint    string    `json:"endpoint" doc:"Where the other side will dial"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of this agent's public key, which is part of the token"`
	Expires     time.Time `json:"expires" doc:"When the invitation ends"`
	Grants      []Grant   `json:"grants" nullable:"false" doc:"What the agent that joins will be granted"`
}

// OpenInvitation is an invitation that nobody has used. Its token is not known any more.
type OpenInvitation struct {
	ID       string    `json:"id" doc:"By which it is taken back"`
	Created  time.Time `json:"created" doc:"When it was made"`
	Expires  time.Time `json:"expires" doc:"When it ends by itself"`
	Attempts int       `json:"attempts" doc:"How often it was tried with a wrong secret"`
	Grants   []Grant   `json:"grants" nullable:"false" doc:"What the agent that joins will be granted"`
}

// JoinRequest accepts another agent's invitation.
type JoinRequest struct {
	Token  string  `json:"token" minLength:"1" doc:"What peer invite printed on the other side"`
	Grants []Grant `json:"grants,omitempty" nullable:"false" maxItems:"100" doc:"What the inviting agent may ask of this one; by default it may make twins of its databases here (any database, to-here: link, roles)"`
	// GrantNothing makes the default no grant at all.
	GrantNothing bool `json:"grantNothing,omitempty" doc:"Grant nothing"`
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
	Name        string  `json:"name" minLength:"1" maxLength:"63" doc:"Name by which this agent will know it"`
	Endpoint    string  `json:"endpoint,omitempty" doc:"Address at which to dial it, host:port; empty when only the other side dials"`
	Certificate string  `json:"certificate" minLength:"1" doc:"Its certificate, PEM"`
	Grants      []Grant `json:"grants,omitempty" nullable:"false" maxItems:"100" doc:"What it may ask of this agent; nothing by default"`
}
