package api

// Adoption is what init --adopt took over.
type Adoption struct {
	Links []AdoptedLink `json:"links" doc:"The links that this agent works from now on"`
	Peers []AdoptedPeer `json:"peers" doc:"The agents on the other side, whose operators have to agree to this agent's key"`
	// Passed holds what looked like a link and was left alone.
	Passed []PassedBy `json:"passed" doc:"What was left alone, with why"`
}

// AdoptedLink is a link that was taken over.
type AdoptedLink struct {
	Name     string `json:"name"`
	Database string `json:"database"`
	Role     Role   `json:"role"`
	Peer     string `json:"peer"`
}

// AdoptedPeer is the other side of links that were taken over.
type AdoptedPeer struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	Known    bool   `json:"known" doc:"Whether its key was found; if not, the two have to be paired again"`
}

// PassedBy is a database, or a link in it, that was not taken over.
type PassedBy struct {
	Database string `json:"database"`
	Link     string `json:"link,omitempty"`
	Why      string `json:"why"`
	Hint     string `json:"hint,omitempty"`
}
