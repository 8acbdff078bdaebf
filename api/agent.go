package api

import "time"

// Agent is the agent that answers.
type Agent struct {
	ID          string    `json:"id" doc:"Identifier, a UUID made by init"`
	Name        string    `json:"name" doc:"Name given to init"`
	Version     string    `json:"version" doc:"Version of the program"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of the agent's public key" example:"sha256:4f0c..."`
	Expires     time.Time `json:"expires" doc:"When its certificate ends"`
	Endpoint    string    `json:"endpoint" doc:"Address at which peers reach it, host:port"`
	StartedAt   time.Time `json:"startedAt" doc:"When the process began"`
	Postgres    Postgres  `json:"postgres" doc:"The instance"`
	Links       int       `json:"links" doc:"Number of links"`
	Peers       int       `json:"peers" doc:"Number of peers"`
	Problems    []Problem `json:"problems" nullable:"false" doc:"What is wrong now with the agent or its instance"`
}

// Postgres is the instance that an agent stands beside, as the agent reaches it.
// It never holds a password.
type Postgres struct {
	Managed   bool   `json:"managed" doc:"Whether the agent runs the server itself"`
	Connected bool   `json:"connected" doc:"Whether the server answers"`
	Version   string `json:"version" doc:"Version of the server; empty until it answered" example:"15.14"`
	Host      string `json:"host" doc:"Host, or the directory of the Unix socket where there is no TCP"`
	Port      int    `json:"port" doc:"Port"`
	SocketDir string `json:"socketDir" doc:"Directory of a managed server's Unix socket; empty otherwise"`
	User      string `json:"user" doc:"Role that the agent logs in as"`
	DSN       string `json:"dsn" doc:"Connection string without password and database, for psql on the agent's machine" example:"host=/run/twinspan port=5432 user=postgres"`
	SystemID  string `json:"systemId" doc:"System identifier of the cluster; empty until it answered"`
	DataDir   string `json:"dataDir" doc:"Data directory of a managed server; empty otherwise"`
}

// Database is one database of the instance that accepts connections.
type Database struct {
	Name  string         `json:"name" doc:"Name of the database"`
	Owner string         `json:"owner" doc:"Role that owns it"`
	Bytes int64          `json:"bytes" doc:"Its size"`
	Links []DatabaseLink `json:"links" nullable:"false" doc:"Links that it is part of"`
}

// DatabaseLink is a link as its database shows it.
type DatabaseLink struct {
	Name  string `json:"name" doc:"Name of the link"`
	Role  Role   `json:"role" enum:"primary,secondary" doc:"What this database is in it"`
	Phase Phase  `json:"phase" doc:"What the link is doing"`
}
