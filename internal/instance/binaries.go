package instance

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// BinariesEnv names the environment variable with directories, separated as in
// PATH, that are looked at before all others for PostgreSQL's programs.
const BinariesEnv = "TWINSPAN_PG_BIN"

// Oldest is the oldest major version that a managed server may have.
const Oldest = 14

// Binaries is a directory with the programs of one PostgreSQL server.
type Binaries struct {
	Dir   string // holds at least initdb, pg_ctl and postgres
	Major int    // 15 for PostgreSQL 15.12
}

// Path returns the path of a program in the directory; it need not exist.
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// Find finds a program of the server's version: beside the others, or where programs are looked for. It fails with the code client_missing.
func (b Binaries) Find(program string) (string, error) {
	for _, dir := range slices.Concat([]string{b.Dir}, namedDirs(), installedDirs(), fetchedDirs()) {
		candidate := filepath.Join(dir, program)
		if !executable(candidate) || isDebianWrapper(candidate) {
			continue
		}
		if major, err := programMajor(candidate); err == nil && major == b.Major {
			return candidate, nil
		}
	}
	return "", problem.New(problem.NotFound, "client_missing", "the program %s of PostgreSQL %d is not installed", program, b.Major).
		WithHint("install it (it comes with the server, on Debian as part of postgresql-%d), or name its directory with %s", b.Major, BinariesEnv)
}

// BinariesIn looks at one directory. It fails with the code binaries_missing
// when the directory does not hold a server that can be run here.
func BinariesIn(dir string) (Binaries, error) {
	for _, program := range []string{"initdb", "pg_ctl", "postgres"} {
		if !executable(filepath.Join(dir, program)) {
			return Binaries{}, problem.New(problem.NotFound, "binaries_missing", "there is no PostgreSQL server in %s: %s is missing", dir, program).
				WithHint("name the directory that holds initdb, pg_ctl and postgres, such as /usr/lib/postgresql/17/bin")
		}
	}
	major, err := programMajor(filepath.Join(dir, "postgres"))
	if err != nil {
		return Binaries{}, problem.Wrap(err, problem.Incompatible, "binaries_broken", "the PostgreSQL server in %s cannot be run", dir).
			WithHint("install it again, or name another directory with %s", BinariesEnv)
	}
	return Binaries{Dir: dir, Major: major}, nil
}

// FindBinaries finds the server of a major version, or the newest one when
// major is 0. It looks in the directories of TWINSPAN_PG_BIN, then in PATH and
// where distributions install PostgreSQL, then where scripts/ensure-postgres
// and scripts/fetch-majors put what they bring. A place hides those after it:
// what was fetched for tests is not preferred to what was installed. When run as
// root it passes over directories that the user for servers cannot enter.
func FindBinaries(major int) (Binaries, error) { return FindBinariesWith(major) }

// FindBinariesWith is FindBinaries for a server that has more programs beside it.
func FindBinariesWith(major int, programs ...string) (Binaries, error) {
	incomplete := func(b Binaries) bool {
		return slices.ContainsFunc(programs, func(p string) bool { return !executable(b.Path(p)) })
	}
	for _, dirs := range [][]string{namedDirs(), installedDirs(), fetchedDirs()} {
		if b, ok := choose(slices.DeleteFunc(serversIn(dirs), incomplete), major); ok {
			return b, nil
		}
	}
	what := "no PostgreSQL server is installed"
	if major != 0 {
		what = "no PostgreSQL server of version " + strconv.Itoa(major) + " is installed"
	}
	if len(programs) > 0 {
		what += " with " + strings.Join(programs, ", ")
	}
	return Binaries{}, problem.New(problem.NotFound, "binaries_missing", "%s", what).
		WithHint("install PostgreSQL (on Debian: apt-get install postgresql), or name the directory of its programs with %s", BinariesEnv)
}

// choose returns the first of the wanted major, or of the newest.
func choose(found []Binaries, major int) (Binaries, bool) {
	var best Binaries
	for _, b := range found {
		if (major == 0 || b.Major == major) && b.Major > best.Major {
			best = b
		}
	}
	return best, best.Major > 0
}

func serversIn(dirs []string) []Binaries {
	owner, ownerErr := runAs("")
	var found []Binaries
	for _, dir := range dirs {
		b, err := BinariesIn(dir)
		if err == nil && ownerErr == nil && owner.reaches(dir) {
			found = append(found, b)
		}
	}
	return found
}

// FindClient finds the newest program such as pg_dump whose major version is at
// least minMajor (0 for any), in the places that FindBinaries looks at, and
// returns its path and major version. It fails with the code client_missing.
func FindClient(name string, minMajor int) (path string, major int, err error) {
	newest := 0
	for _, dir := range slices.Concat(namedDirs(), installedDirs(), fetchedDirs()) {
		candidate := filepath.Join(dir, name)
		if !executable(candidate) || isDebianWrapper(candidate) {
			continue
		}
		m, err := programMajor(candidate)
		if err == nil && m >= minMajor && m > major {
			path, major = candidate, m
		} else if err == nil {
			newest = max(newest, m)
		}
	}
	if path != "" {
		return path, major, nil
	}
	text := "the program " + name + " is not installed"
	if newest > 0 {
		text = "the newest " + name + " here is of version " + strconv.Itoa(newest) + ", but version " + strconv.Itoa(minMajor) + " is needed"
	}
	hint := "install the PostgreSQL client programs (on Debian: postgresql-client)"
	if minMajor > 0 {
		hint += " of version " + strconv.Itoa(minMajor) + " or newer"
	}
	return "", 0, problem.New(problem.NotFound, "client_missing", "%s", text).
		WithHint("%s, or name the directory that holds %s with %s", hint, name, BinariesEnv)
}

// namedDirs are those that the operator named.
func namedDirs() []string { return filepath.SplitList(os.Getenv(BinariesEnv)) }

// installedDirs are those in which PostgreSQL's programs are installed.
func installedDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if config, err := exec.LookPath("pg_config"); err == nil {
		if out, err := output(config, "--bindir"); err == nil {
			dirs = append(dirs, out)
		}
	}
	dirs = append(dirs, glob(
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
		"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin")...)
	seen := map[string]bool{}
	return slices.DeleteFunc(dirs, func(d string) bool {
		old := seen[d]
		seen[d] = true
		return old || !filepath.IsAbs(d)
	})
}

// CacheEnv names the environment variable with the directory into which this project's
// scripts unpack programs, where that is not the usual one.
const CacheEnv = "TWINSPAN_CACHE"

// Caches are the directories into which this project's scripts unpack programs
// (scripts/postgres-packages.bash, cache_dir).
func Caches() []string {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return []string{dir}
	}
	caches := []string{"/var/cache/twinspan/postgres"}
	if cache, err := os.UserCacheDir(); err == nil {
		caches = append(caches, filepath.Join(cache, "twinspan/postgres"))
	}
	return caches
}

// fetchedDirs are the directories of programs in the caches.
func fetchedDirs() []string {
	var patterns []string
	for _, cache := range Caches() {
		patterns = append(patterns, filepath.Join(cache, "*/bin"))
	}
	return glob(patterns...)
}

func glob(patterns ...string) []string {
	var dirs []string
	for _, pattern := range patterns {
		// The only error is a malformed pattern.
		matches, _ := filepath.Glob(pattern)
		dirs = append(dirs, matches...)
	}
	return dirs
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// isDebianWrapper recognises pg_wrapper of postgresql-common, which chooses a
// version by its arguments, so that what it says to --version binds nothing.
func isDebianWrapper(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && filepath.Base(real) == "pg_wrapper"
}

// programMajor returns the major version of a program of PostgreSQL.
func programMajor(path string) (int, error) {
	r, err := programRelease(path)
	return r.Major, err
}

func output(path string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = cleanEnv()
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// cleanEnv is this process's environment without the variables that steer
// PostgreSQL's programs, and with messages in English, for they are read here.
func cleanEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG")
	})
	env = append(env, "LC_ALL=C")
	slices.SortFunc(env, cmp.Compare[string])
	return env
}
