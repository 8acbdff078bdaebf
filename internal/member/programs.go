package member

import (
	"context"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// The oldest versions that are used: 4.0 of Patroni brought sound synchronous replication over etcd 3, and 3.5 of etcd the consistency checks at start.
var (
	oldestPatroni = [2]int{4, 0}
	oldestEtcd    = [2]int{3, 5}
)

// versionWait bounds the question for a program's version. Patroni's interpreter takes long to begin on a busy machine, and a program that does not answer
// counts as missing.
const versionWait = time.Minute

// FindServer finds the programs of a server of a major version, or of the newest where it is 0, with those that Patroni needs to copy and to rewind it. It fails with the code
// binaries_missing.
func FindServer(major int) (instance.Binaries, error) {
	return instance.FindBinariesWith(major, "pg_basebackup", "pg_rewind", "pg_controldata")
}

// Programs are the paths of the programs that a member runs.
type Programs struct {
	Etcd    string
	Patroni string // "" for a witness
}

// Find finds the programs and checks their versions, in the places where a server's programs are looked for. It fails with the codes etcd_missing, etcd_too_old,
// patroni_missing and patroni_too_old.
func Find(ctx context.Context, witness bool) (Programs, error) {
	var p Programs
	var err error
	if p.Etcd, err = find(ctx, wantedProgram{"etcd", "etcd", oldestEtcd, "etcd-server", "etcd_missing", "etcd_too_old"}); err != nil || witness {
		return p, err
	}
	p.Patroni, err = find(ctx, wantedProgram{"patroni", "Patroni", oldestPatroni, "patroni", "patroni_missing", "patroni_too_old"})
	return p, err
}

// wantedProgram is one to find: its file, its name, its oldest version, its package in Debian, and the codes of what is wrong.
type wantedProgram struct {
	program, title  string
	oldest          [2]int
	deb             string
	missing, tooOld string
}

func find(ctx context.Context, w wantedProgram) (string, error) {
	newest := ""
	for _, path := range instance.Programs(w.program) {
		asking, stop := context.WithTimeout(ctx, versionWait)
		out, err := exec.CommandContext(asking, path, "--version").Output()
		stop()
		version, major, minor := parseVersion(string(out))
		if err != nil || version == "" {
			continue
		}
		if major > w.oldest[0] || major == w.oldest[0] && minor >= w.oldest[1] {
			return path, nil
		}
		newest = version
	}
	if newest != "" {
		return "", problem.New(problem.Incompatible, w.tooOld, "%s is of version %s, and %d.%d is the oldest that members run", w.title, newest, w.oldest[0], w.oldest[1]).
			WithHint("install a newer one, or name its directory with %s", instance.BinariesEnv)
	}
	return "", problem.New(problem.NotFound, w.missing, "the program %s is not installed", w.program).
		WithHint("install %s %d.%d or newer (on Debian: apt-get install %s), or name its directory with %s", w.title, w.oldest[0], w.oldest[1], w.deb, instance.BinariesEnv)
}

var versionPattern = regexp.MustCompile(`\b[vV]?((\d+)\.(\d+)(?:\.\d+)*)`)

// parseVersion reads the first version in what a program says of itself, as "patroni 4.0.7" or "etcd Version: 3.5.16".
func parseVersion(text string) (version string, major, minor int) {
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return "", 0, 0
	}
	major, _ = strconv.Atoi(m[2]) // digits; a number too large is no version
	minor, _ = strconv.Atoi(m[3])
	return m[1], major, minor
}
