// Package leaks is test support: it finds goroutines that tests leave running, also on a machine
// on which those that end take long for it.
package leaks

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a goroutine that ends may take for it. goleak itself waits for less than
// half a second.
const patience = 20 * time.Second

// Find returns an error that shows the goroutines which still run after a while, but for those to
// ignore; nil if there are none.
func Find(ignore ...goleak.Option) error {
	err := goleak.Find(ignore...)
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		err = goleak.Find(ignore...)
	}
	return err
}

// Code returns the exit code of a run of tests that ended with code: another than 0 also where
// goroutines were left running, which it prints.
func Code(code int, ignore ...goleak.Option) int {
	if code != 0 {
		return code
	}
	if err := Find(ignore...); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left running after the tests:", err)
		return 1
	}
	return 0
}

// Main runs the tests of a package, looks for goroutines that were left running, and exits.
func Main(m *testing.M, ignore ...goleak.Option) { os.Exit(Code(m.Run(), ignore...)) }
