package link

import (
	"errors"
	"testing"

	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// While a forced failover keeps a link from its work the role changes: what waited for it
// must not begin to work, beside loops of the role that was.
func TestWorkIsOfTheRoleThatAsksForIt(t *testing.T) {
	l := quietLink(role.Primary, role.Broken, true)
	if err := l.workOnce(t.Context(), role.Secondary); !errors.Is(err, side.ErrChanged) {
		t.Errorf("work ended with %v", err)
	}
	if !l.atWork.TryLock() {
		t.Error("the work was not given up")
	}
}
