package peer

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/twinspan/twinspan/internal/problem"
)

// The bounds of a problem that crosses a connection, in bytes.
const (
	maxFault        = 64 << 10
	maxFaultSubject = 1 << 10
	maxFaultText    = 16 << 10
)

var codePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// fault is how a problem crosses a connection.
type fault struct {
	Kind    problem.Kind `json:"kind"`
	Code    string       `json:"code"`
	Subject string       `json:"subject,omitempty"`
	Text    string       `json:"text"`
	Hint    string       `json:"hint,omitempty"`
}

// encodeFault encodes err as a problem, its causes folded into the text.
func encodeFault(err error) []byte {
	p := problem.As(err)
	b, jsonErr := json.Marshal(fault{
		Kind: p.Kind, Code: p.Code, Subject: clip(p.Subject, maxFaultSubject),
		Text: clip(p.Error(), maxFaultText), Hint: clip(p.Hint, maxFaultText),
	})
	if jsonErr != nil || len(b) > maxFault { // longer only when full of characters that JSON escapes
		b, _ = json.Marshal(fault{Kind: p.Kind, Code: p.Code, Text: "the problem's text cannot be sent"})
	}
	return b
}

// decodeFault rebuilds a problem from its encoding. It accepts anything: what it does not
// understand becomes a problem of kind Internal, for the other side did fail.
func decodeFault(b []byte) *problem.Error {
	var f fault
	if len(b) > maxFault || json.Unmarshal(b, &f) != nil {
		return problem.New(problem.Internal, "internal", "the peer failed and sent no readable problem")
	}
	e := &problem.Error{
		Kind: f.Kind, Code: f.Code, Subject: clip(line(f.Subject), maxFaultSubject),
		Text: clip(line(f.Text), maxFaultText), Hint: clip(line(f.Hint), maxFaultText),
	}
	if !knownKind(e.Kind) {
		e.Kind = problem.Internal
	}
	if !codePattern.MatchString(e.Code) {
		e.Code = "internal"
	}
	if e.Text == "" {
		e.Text = "the peer failed"
	}
	return e
}

func knownKind(k problem.Kind) bool {
	switch k {
	case problem.Invalid, problem.NotFound, problem.Conflict, problem.Unauthorised, problem.Incompatible,
		problem.Transient, problem.Resource, problem.Diverged, problem.Cancelled, problem.Internal:
		return true
	}
	return false
}

// clip shortens s to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// line puts s on one line, without control characters.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
