package problem

import (
	"fmt"
	"strings"
)

// mostNamed is how many names a sentence lists.
const mostNamed = 10

// Names lists the first of some names in a sentence, and says how many more there are.
func Names(names []string) string {
	if more := len(names) - mostNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNamed], ", "), more)
	}
	return strings.Join(names, ", ")
}
