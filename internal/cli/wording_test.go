package cli

import "testing"

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
