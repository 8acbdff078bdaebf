// Package api holds the types of the REST interface, version 1, that an agent
// serves: what the command line prints with -o json is one of them. It imports
// the standard library alone and holds no logic.
//
// The JSON is a contract. Fields are added, never renamed, removed or given
// another meaning. Lists are never null. A log position is a string in
// PostgreSQL's form "X/X"; "0/0" says that it is not known. Sizes are bytes,
// durations are seconds, times are RFC 3339 in UTC.
//
// The struct tags doc, enum, example and nullable describe the fields in
// /openapi.json.
package api

// Version is the name of this version of the interface, the first element of
// every path.
const Version = "v1"
