package api

// Initialised is what init prints: the agent that now exists in a directory.
type Initialised struct {
	Name        string     `json:"name" doc:"Name of the agent"`
	ID          string     `json:"id" doc:"Its identifier"`
	Fingerprint string     `json:"fingerprint" doc:"SHA-256 of its public key"`
	Dir         string     `json:"dir" doc:"The agent's directory"`
	Endpoint    string     `json:"endpoint" doc:"Address at which peers reach it"`
	Managed     bool       `json:"managed" doc:"Whether the agent will run the server itself"`
	Member      string     `json:"member,omitempty" doc:"Name of the member, of an instance of the tier business-critical"`
	Created     bool       `json:"created" doc:"False when the directory was initialised with the same parameters before"`
	API         string     `json:"api" doc:"Address of the API over TCP; empty for the Unix socket alone"`
	Password    string     `json:"password,omitempty" doc:"Of the superuser postgres of a managed server that listens for other machines; shown once"`
	Adopted     *Adoption  `json:"adopted,omitempty" doc:"What was taken over with --adopt"`
	Tokens      *APITokens `json:"tokens,omitempty" doc:"Shown once, when the API over TCP is set up"`
}

// APITokens are the bearer tokens of the API over TCP. They are secrets; the
// agent keeps only their hashes.
type APITokens struct {
	Operator string `json:"operator" doc:"May do everything"`
	Reader   string `json:"reader" doc:"May look"`
}

// VersionInfo is what the command version prints.
type VersionInfo struct {
	Version  string `json:"version" doc:"Version of the program"`
	Go       string `json:"go" doc:"Version of Go that it was built with"`
	Platform string `json:"platform" doc:"Operating system and architecture"`
}
