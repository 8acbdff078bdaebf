// Package pgbackrest keeps backups with the program pgBackRest (2.58 or newer): a backup.Engine for
// a managed server, with a repository in a directory, encrypted.
package pgbackrest

import (
	"context"
	"regexp"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// The oldest version that is used: block incremental, bundles and all majors up to 18 (research: 2.45, that of
// Debian 12, knows nothing newer than PostgreSQL 15).
const oldestMajor, oldestMinor = 2, 58

// versionWait bounds the question for a program's version.
const versionWait = 20 * time.Second

// version is that of a program.
type version struct{ major, minor int }

func (v version) enough() bool {
	return v.major > oldestMajor || v.major == oldestMajor && v.minor >= oldestMinor
}

func (v version) String() string { return strconv.Itoa(v.major) + "." + strconv.Itoa(v.minor) }

var versionPattern = regexp.MustCompile(`pgBackRest (\d+)\.(\d+)`)

func parseVersion(said string) (version, bool) {
	m := versionPattern.FindStringSubmatch(said)
	if m == nil {
		return version{}, false
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	return version{major, minor}, err1 == nil && err2 == nil
}

// Find returns the path of the first pgBackRest that is new enough, where instance.Programs looks. It fails with the code pgbackrest_missing
// or pgbackrest_too_old.
func Find(ctx context.Context, server *instance.Server) (string, error) {
	var old version
	for _, path := range instance.Programs("pgbackrest") {
		asking, cancel := context.WithTimeout(ctx, versionWait)
		out, _, err := server.Work(asking, nil, path, "version")
		cancel()
		if v, ok := parseVersion(string(out)); err == nil && ok {
			if v.enough() {
				return path, nil
			}
			old = v
		}
	}
	if ctx.Err() != nil {
		return "", problem.As(ctx.Err())
	}
	if old != (version{}) {
		return "", problem.New(problem.Incompatible, "pgbackrest_too_old", "pgBackRest %s is too old: %d.%d or newer is needed", old, oldestMajor, oldestMinor).
			WithHint("install a newer pgBackRest (on Debian from apt.postgresql.org), or name its directory with %s", instance.BinariesEnv)
	}
	return "", problem.New(problem.NotFound, "pgbackrest_missing", "pgBackRest is not installed: nothing of this instance is backed up").
		WithHint("install pgBackRest %d.%d or newer (on Debian from apt.postgresql.org), or name its directory with %s; the agent finds it by itself",
			oldestMajor, oldestMinor, instance.BinariesEnv)
}
