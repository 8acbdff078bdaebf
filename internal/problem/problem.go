// Package problem is the one error type of Twinspan. A problem has a kind, which
// decides what happens next (retry, refuse, stop), a code, which names it in
// the documentation and to scripts, and a hint, which says what to do.
//
// Problems are wrapped upward and logged once; they cross the peer connection
// and the API as kind, code and text and are the same problem on the other side.
package problem

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Kind says what sort of failure an error is. Kinds are append-only: they cross
// the wire between agents of different versions.
type Kind string

// The kinds.
const (
	Invalid      Kind = "invalid"      // the request is wrong; the same request fails again
	NotFound     Kind = "not_found"    // what it names does not exist
	Conflict     Kind = "conflict"     // it contradicts what exists
	Unauthorised Kind = "unauthorised" // the caller or the agent may not do this
	Incompatible Kind = "incompatible" // versions, settings or features do not fit
	Transient    Kind = "transient"    // try again: a connection broke, a lock was held
	Resource     Kind = "resource"     // space, slots or memory are used up
	Diverged     Kind = "diverged"     // the two sides differ where they must not: stop
	Cancelled    Kind = "cancelled"    // somebody asked for the end
	Internal     Kind = "internal"     // a defect in Twinspan
)

// Severity says how much a raised problem matters.
type Severity string

// The severities, heaviest first.
const (
	Blocks  Severity = "blocks"  // nothing goes on until it is solved
	Warns   Severity = "warns"   // it goes on, but somebody should act
	Informs Severity = "informs" // worth knowing
)

// Error is a problem met while doing something.
type Error struct {
	Kind    Kind
	Code    string // stable, lower_snake; the key of the catalogue of problems
	Subject string // the object it is about: a table, a slot, a link; may be empty
	Text    string // one line, no trailing full stop, no secrets, no row values
	Hint    string // what to do; may be empty
	Err     error  // the cause; may be nil
}

// New makes a problem. The text is formatted as fmt.Sprintf does.
func New(kind Kind, code, text string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Text: fmt.Sprintf(text, args...)}
}

// Wrap makes a problem with a cause. The cause's text is appended when printed.
func Wrap(err error, kind Kind, code, text string, args ...any) *Error {
	e := New(kind, code, text, args...)
	e.Err = err
	return e
}

// On names the object and returns the same problem.
func (e *Error) On(subject string) *Error {
	e.Subject = subject
	return e
}

// WithHint adds the remedy and returns the same problem.
func (e *Error) WithHint(text string, args ...any) *Error {
	e.Hint = fmt.Sprintf(text, args...)
	return e
}

// Error implements error: text and cause on one line.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return e.Text + ": " + oneLine(e.Err.Error())
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", " ")), " ")
}

// As returns err as a problem. An error that carries none becomes one of kind
// Internal, or Cancelled and Transient for the context errors; nil stays nil.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if err == error(e) {
			return e
		}
		// Keep what was wrapped around it: the outer text says where it happened.
		return &Error{Kind: e.Kind, Code: e.Code, Subject: e.Subject, Text: oneLine(err.Error()), Hint: e.Hint, Err: nil}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Wrap(err, Cancelled, "cancelled", "cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(err, Transient, "timeout", "timed out")
	}
	return &Error{Kind: Internal, Code: "internal", Text: oneLine(err.Error())}
}

// KindOf returns the kind of err, as As sees it, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	return As(err).Kind
}

// CodeOf returns the code of err, as As sees it, and "" for nil.
func CodeOf(err error) string {
	if err == nil {
		return ""
	}
	return As(err).Code
}

// Retry says whether the same attempt may succeed later without anybody acting.
func Retry(err error) bool { return KindOf(err) == Transient }
