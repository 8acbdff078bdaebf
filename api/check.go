package api

// CheckRequest asks whether a database can be linked.
type CheckRequest struct {
	Database     string `json:"database" minLength:"1" maxLength:"63" doc:"The database on this agent's instance"`
	Peer         string `json:"peer,omitempty" doc:"Also look at this peer's instance"`
	PeerDatabase string `json:"peerDatabase,omitempty" maxLength:"63" doc:"The database on the peer's instance; the same name by default"`
}

// Check is the answer: what stands in the way of a link, and what to know before.
type Check struct {
	Database string    `json:"database" doc:"The database that was looked at"`
	Peer     string    `json:"peer" doc:"The peer that was looked at; empty for none"`
	Findings []Finding `json:"findings" nullable:"false" doc:"What was found, heaviest first; empty when all is well"`
}

// Finding is one thing that a check found.
type Finding struct {
	Code     string   `json:"code" doc:"Stable name; link create accepts it by this name" example:"wal_level_low"`
	Severity Severity `json:"severity" enum:"blocks,warns,informs" doc:"How much it matters"`
	Object   string   `json:"object" doc:"The object that it is about"`
	Why      string   `json:"why" doc:"Why it matters"`
	Remedy   string   `json:"remedy" doc:"What to do; may be empty"`
}
