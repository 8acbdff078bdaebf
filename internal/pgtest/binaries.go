package pgtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/twinspan/twinspan/internal/instance"
)

// MinorEnv names the environment variable that chooses the minor release of servers:
// "installed" (the default) for those that are found, "newest" for those that
// scripts/fetch-newest brought, where there is one of the major version, "mixed" for
// either, drawn for each server.
const MinorEnv = "TWINSPAN_TEST_MINOR"

// findBinaries finds the programs that the options ask for.
func findBinaries(o options, random *rand.Rand) (instance.Binaries, error) {
	if o.dir != "" {
		return instance.BinariesIn(o.dir)
	}
	found, err := instance.FindBinaries(o.major)
	if err != nil {
		return found, err
	}
	choice := os.Getenv(MinorEnv)
	if choice == "mixed" {
		choice = []string{"installed", "newest"}[random.IntN(2)]
	}
	switch choice {
	case "", "installed":
		return found, nil
	case "newest":
		if newest, ok := newestMinor(found.Major); ok {
			return newest, nil
		}
		return found, nil
	default:
		return found, fmt.Errorf("%s is %q, but may be installed, newest or mixed", MinorEnv, choice)
	}
}

// newestMinor returns the programs of a major version that scripts/fetch-newest brought.
func newestMinor(major int) (instance.Binaries, bool) {
	for _, cache := range instance.Caches() {
		b, err := instance.BinariesIn(filepath.Join(cache, "newest", strconv.Itoa(major), "bin"))
		if err == nil && b.Major == major && instance.Reachable(b.Dir) {
			return b, true
		}
	}
	return instance.Binaries{}, false
}
