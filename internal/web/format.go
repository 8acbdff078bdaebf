package web

import (
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// functions are what templates format with. What is not known is written so.
func functions() template.FuncMap {
	return template.FuncMap{
		"base":     func() string { return Base },
		"size":     func(n any) string { return sizeOf(n) },
		"duration": func(n any) string { return durationOf(n) },
		"rate":     func(n any) string { return rateOf(n) },
		"when":     when,
		"ago":      ago,
		"phrase":   func(v any) string { return strings.ReplaceAll(fmt.Sprint(v), "_", " ") },
		"tone":     tone,
		"known":    func(code string) bool { _, is := problem.Describe(code); return is },
		"link":     func(name string) string { return Base + "links/" + url.PathEscape(name) },
		"segment":  url.PathEscape,
		"percent":  percent,
		"plural":   func(n any, noun string) string { return terminal.Plural(int(whole(n)), noun) },
		"dash": func(s string) string {
			if s == "" {
				return "–"
			}
			return s
		},
		"join":      strings.Join,
		"short":     short,
		"mul":       func(a, b float64) float64 { return a * b },
		"megabytes": func(n int64) int64 { return n / megabyte },
		"deref": func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		},
		"chosen":     func(list []string, one string) bool { return slices.Contains(list, one) },
		"prose":      prose,
		"operations": func() []string { return []string{"link", "roles", "failover", "delete"} },
		"dict":       dict,
	}
}

// dict gives a part of a template several values.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict: a name without a value")
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m, nil
}

const unknown = "unknown"

func sizeOf(v any) string {
	switch n := v.(type) {
	case int64:
		return terminal.Size(n)
	case int:
		return terminal.Size(int64(n))
	case float64:
		return terminal.Size(int64(n))
	case *int64:
		return terminal.Known(n, terminal.Size)
	case *float64:
		return terminal.Known(n, func(f float64) string { return terminal.Size(int64(f)) })
	}
	return unknown
}

func durationOf(v any) string {
	switch n := v.(type) {
	case float64:
		return terminal.Duration(n)
	case int64:
		return terminal.Duration(float64(n))
	case time.Duration:
		return terminal.Duration(n.Seconds())
	case *float64:
		return terminal.Known(n, terminal.Duration)
	}
	return unknown
}

func rateOf(v any) string {
	switch n := v.(type) {
	case float64:
		return terminal.Rate(n)
	case *float64:
		return terminal.Known(n, terminal.Rate)
	}
	return unknown
}

// moment is a time that is a value or a pointer, and whether there is one.
func moment(v any) (time.Time, bool) {
	switch t := v.(type) {
	case time.Time:
		return t, !t.IsZero()
	case *time.Time:
		if t != nil {
			return *t, true
		}
	}
	return time.Time{}, false
}

// when writes a moment for people and for programs.
func when(v any) template.HTML {
	t, has := moment(v)
	if !has {
		return "–"
	}
	t = t.UTC()
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339) + `">` + t.Format("2006-01-02 15:04:05") + ` UTC</time>`) // digits alone
}

// ago writes about how long ago a moment was.
func ago(v any) template.HTML {
	t, has := moment(v)
	if !has {
		return "–"
	}
	d := time.Since(t)
	text := roughly(d) + " ago"
	switch {
	case d < -time.Second:
		text = "in " + roughly(-d)
	case d < time.Second:
		text = "now"
	}
	at := t.UTC().Format("2006-01-02 15:04:05 UTC")
	return template.HTML(`<time datetime="` + t.UTC().Format(time.RFC3339) + `" title="` + at + `">` + text + `</time>`) // digits and words of ours alone
}

// roughly writes a duration in its largest unit.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d/day))
}

// tone says in which colour a word of the API is shown: ok, busy, warn, bad or idle.
func tone(v any) string {
	switch v {
	case api.Healthy, api.Replicating, api.AuditWaiting, api.SyncEngaged, api.FailoverDone, api.Copied, api.Equal, api.Repaired, api.PartingRead, api.RoleSame, api.TableCopied, "done":
		return "ok"
	case api.Creating, api.Seeding, api.CatchingUp, api.FailingOver, api.AuditRunning, api.SyncPending, api.FailoverRunning, api.Copying, api.Verifying, api.PartingReading, api.TableCopying, "running", "waiting":
		return "busy"
	case api.Degraded, api.Suspended, api.Warns, api.AuditResting, api.SyncDegraded, api.FailoverUndone, api.RoleDiffers, api.CopyCancelled, api.Cancelled:
		return "warn"
	case api.Unhealthy, api.Fenced, api.Broken, api.Blocks, api.CopyFailed, api.Failed, api.Different, api.PartingUnreadable, api.RoleMissing, "failed":
		return "bad"
	}
	return "idle"
}

// whole is a whole number of either type that the API has.
func whole(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case int:
		return int64(n)
	}
	return 0
}

// prose writes the catalogue's text, in which back-quotes are around code.
func prose(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if part = template.HTMLEscapeString(part); i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String()) // of escaped parts
}

func percent(done, total any) int64 {
	d, t := whole(done), whole(total)
	if t <= 0 {
		return 0
	}
	return min(100, d*100/t)
}

// short is the beginning of a long text, in whole characters.
func short(n int, s string) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
