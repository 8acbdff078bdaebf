// Package telemetry is how Twinspan logs: the keys of attributes, the handler
// that the process uses, a wrapper that keeps secrets out, and a brake for errors
// that come again and again.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// The keys of log attributes. All data of a log line is in attributes under
// these; messages are constant.
const (
	Agent     = "agent"
	Component = "component"
	Link      = "link"
	Peer      = "peer"
	Database  = "database"
	Role      = "role"
	Phase     = "phase"
	Epoch     = "epoch"
	Step      = "step"
	Slot      = "slot"
	LSN       = "lsn"
	XID       = "xid"
	Table     = "table"
	Chunk     = "chunk"
	Rows      = "rows"
	Bytes     = "bytes"
	Address   = "address"
	PID       = "pid"
	Dur       = "dur"
	Code      = "code"
	Err       = "err"
	Hint      = "hint"
	Repeated  = "repeated"
)

// Secret holds something that must never be printed: a connection string, a
// token, a password. Whatever prints it, log, fmt or JSON, shows a placeholder.
type Secret struct{ value string }

// NewSecret wraps a secret.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns what is inside, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb gets past it.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Failure returns the attributes of an error: its code and its text, and the
// remedy where there is one.
func Failure(err error) slog.Attr {
	p := problem.As(err)
	if p == nil {
		return slog.Attr{}
	}
	attrs := []any{slog.String(Code, p.Code), slog.String(Err, p.Error())}
	if p.Hint != "" {
		attrs = append(attrs, slog.String(Hint, p.Hint))
	}
	return slog.Group("", attrs...)
}

// Format names a form of log lines.
type Format string

// The forms.
const (
	Text Format = "text"
	JSON Format = "json"
)

// Options say how a process logs.
type Options struct {
	Format Format // empty is Text
	Level  string // debug, info, warn, error; empty is info
}

// New makes the logger of a process. Times are UTC.
func New(w io.Writer, o Options) (*slog.Logger, error) {
	var level slog.Level
	if o.Level != "" {
		if err := level.UnmarshalText([]byte(strings.ToUpper(o.Level))); err != nil {
			return nil, problem.New(problem.Invalid, "log_level_invalid", "there is no log level %q", o.Level).
				WithHint("use debug, info, warn or error")
		}
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Time(slog.TimeKey, a.Value.Time().UTC())
		}
		return a
	}}
	switch o.Format {
	case Text, "":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case JSON:
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, problem.New(problem.Invalid, "log_format_invalid", "there is no log format %q", string(o.Format)).
		WithHint("use text or json")
}
