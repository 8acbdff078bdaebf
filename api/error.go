package api

// Error is the one shape of every answer that is not the one asked for. As a Go
// error it is what package client returns.
type Error struct {
	Status  int    `json:"-"` // the HTTP status it came with; 0 when no agent answered
	Kind    string `json:"kind" doc:"Sort of failure; decides whether trying again can help" enum:"invalid,not_found,conflict,unauthorised,incompatible,transient,resource,diverged,cancelled,internal"`
	Code    string `json:"code" doc:"Stable name, the key into the documentation" example:"link_exists"`
	Subject string `json:"subject" doc:"The object that it is about; may be empty"`
	Text    string `json:"text" doc:"One line that says what is wrong"`
	Hint    string `json:"hint" doc:"What to do; may be empty"`
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Explanation is what twinspan explain says of a code.
type Explanation struct {
	Code     string   `json:"code" doc:"Stable name"`
	Severity Severity `json:"severity" enum:"blocks,warns,informs" doc:"The heaviest that it comes with"`
	Title    string   `json:"title" doc:"What it is, in a few words"`
	Meaning  string   `json:"meaning" doc:"What is so, and what follows from it; may be empty"`
	Remedy   string   `json:"remedy" doc:"What to do; may be empty"`
}

// Failure is an Error as REST answers it: with the members of a problem document (RFC 9457,
// application/problem+json) beside its own.
type Failure struct {
	Type    string `json:"type" doc:"Identifies the code, as a URN" example:"urn:twinspan:problem:link_exists"`
	Title   string `json:"title" doc:"What the code stands for, in a few words"`
	Status  int    `json:"status" doc:"The HTTP status"`
	Detail  string `json:"detail" doc:"The same as text"`
	Kind    string `json:"kind" doc:"Sort of failure; decides whether trying again can help" enum:"invalid,not_found,conflict,unauthorised,incompatible,transient,resource,diverged,cancelled,internal"`
	Code    string `json:"code" doc:"Stable name, the key into the documentation" example:"link_exists"`
	Subject string `json:"subject" doc:"The object that it is about; may be empty"`
	Text    string `json:"text" doc:"One line that says what is wrong"`
	Hint    string `json:"hint" doc:"What to do; may be empty"`
}
