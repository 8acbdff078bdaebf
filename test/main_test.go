// Package test holds the end-to-end tests: two real servers, two agents as
// processes, and what a user would do with them.
package test

import (
	"testing"

	"github.com/twinspan/twinspan/internal/linktest"
)

func TestMain(m *testing.M) { linktest.Main(m) }
