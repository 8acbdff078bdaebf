package cli

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
)

func TestRefusalsNameFlags(t *testing.T) {
	for text, want := range map[string]string{
		"validation failed; onConflict: expected string to match pattern ^(wait|cancel(=.+)?)$": "--on-conflict: expected string to match pattern ^(wait|cancel(=.+)?)$",
		"validation failed; name: expected length >= 1; syncTimeoutSeconds: expected number":    "NAME: expected length >= 1; --sync-timeout: expected number",
		"validation failed; accept[1]: expected length >= 1":                                    "--accept: expected length >= 1",
		"link sales: is broken": "link sales: is broken",
	} {
		if got := ofFlags(text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// An error is one line, and so is its hint, whatever a server has said.
func TestErrorIsOneLine(t *testing.T) {
	var out, errs strings.Builder
	a := &app{out: &out, errs: &errs}
	a.print(api.Error{Code: "server_error", Text: "first\nsecond\r\nthird", Hint: "do\nthis"})
	if got, want := errs.String(), "error: [server_error] first second third\nhint: do this\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
