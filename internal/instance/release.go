package instance

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"

	"github.com/twinspan/twinspan/internal/problem"
)

// Release is a release of PostgreSQL, 10 or newer.
type Release struct {
	Major int // 15 of 15.20
	Minor int // 20 of 15.20; 0 of what was not released yet, such as 19beta1
}

// ReleaseOf reads server_version_num, such as 150020.
func ReleaseOf(number int) Release { return Release{number / 10000, number % 10000} }

// ParseRelease reads what String writes; the zero value for anything else.
func ParseRelease(text string) (r Release) {
	if n, err := fmt.Sscanf(text, "%d.%d", &r.Major, &r.Minor); n != 2 || err != nil {
		return Release{}
	}
	return r
}

// Known says whether the release is known.
func (r Release) Known() bool { return r.Major > 0 }

// Newer says whether the release is a newer one of the same major version than another. It is not when either is unknown.
func (r Release) Newer(than Release) bool {
	return r.Known() && r.Major == than.Major && r.Minor > than.Minor
}

// String returns the release as 15.20, and "" when it is unknown.
func (r Release) String() string {
	if !r.Known() {
		return ""
	}
	return fmt.Sprintf("%d.%d", r.Major, r.Minor)
}

// Installed tells the release of a server's programs as they lie there now: a package may have been upgraded since the server was started. The programs are
// asked again only when their file has changed. The zero value is ready to use, from any goroutine.
type Installed struct {
	mu      sync.Mutex
	file    os.FileInfo // what was asked
	release Release
}

// Of returns the release of the programs. It fails with the codes binaries_missing and binaries_broken, and with binaries_changed where they are of another
// major version than the server they were found for.
func (i *Installed) Of(b Binaries) (Release, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	path := b.Path("postgres")
	info, err := os.Stat(path)
	if err != nil {
		return Release{}, problem.Wrap(err, problem.NotFound, "binaries_missing", "the programs of the server are not in %s any more", b.Dir).On(b.Dir).
			WithHint("install PostgreSQL %d there again: the server runs on, and cannot be started once it has ended", b.Major)
	}
	if i.file == nil || !os.SameFile(i.file, info) || !i.file.ModTime().Equal(info.ModTime()) || i.file.Size() != info.Size() {
		r, err := programRelease(path)
		if err != nil {
			return Release{}, problem.Wrap(err, problem.Incompatible, "binaries_broken", "the PostgreSQL server in %s cannot be run", b.Dir).On(b.Dir).
				WithHint("install it again: the server runs on, and cannot be started once it has ended")
		}
		i.file, i.release = info, r
	}
	if i.release.Major != b.Major {
		return Release{}, problem.New(problem.Incompatible, "binaries_changed", "the programs in %s are of PostgreSQL %d, and the server's data of %d", b.Dir, i.release.Major, b.Major).On(b.Dir).
			WithHint("install PostgreSQL %d there again; another major version takes the databases by links (docs/major-upgrade.md)", b.Major)
	}
	return i.release, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)(?:\.(\d+))?`)

// programRelease runs a program of PostgreSQL with --version.
func programRelease(path string) (r Release, err error) {
	out, err := output(path, "--version")
	if err != nil {
		return r, err
	}
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return r, problem.New(problem.Incompatible, "binaries_broken", "%s does not tell its version", path)
	}
	if r.Major, err = strconv.Atoi(m[1]); err == nil && m[2] != "" {
		r.Minor, err = strconv.Atoi(m[2])
	}
	return r, err
}
