package api

import "time"

// Token is a token of the REST interface over TCP.
type Token struct {
	ID        string     `json:"id" doc:"Names the token; the first digits of its hash"`
	Role      string     `json:"role" enum:"reader,operator" doc:"What its holder may do"`
	Label     string     `json:"label" doc:"What it is for; may be empty"`
	CreatedAt *time.Time `json:"createdAt" doc:"When it was made; null where that is not known"`
	Token     string     `json:"token,omitempty" doc:"The token itself, when it is made; it exists nowhere else"`
}
