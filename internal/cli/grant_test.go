package cli

import (
	"fmt"
	"testing"
)

func TestGrantsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"all":                           "[{* from-here [link roles failover delete] } {* to-here [link roles failover delete] }]",
		"sales":                         "[{sales from-here [link failover delete] } {sales to-here [link failover delete] }]",
		"*:to-here":                     "[{* to-here [link failover delete] }]",
		"sales:from-here:link,failover": "[{sales from-here [link failover] }]",
		"sales:both:roles":              "[{sales from-here [roles] } {sales to-here [roles] }]",
		"a:b":                           "[{a:b from-here [link failover delete] } {a:b to-here [link failover delete] }]",
		"a:b:to-here:link":              "[{a:b to-here [link] }]",
		"a:link":                        "[{a:link from-here [link failover delete] } {a:link to-here [link failover delete] }]",
	} {
		got, err := parseGrant(text)
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("%s: %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "none", ":to-here"} {
		if got, err := parseGrant(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
