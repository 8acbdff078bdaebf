package pgbackrest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// Stanza is the name of the instance within its repository, Cipher how that is encrypted.
const (
	Stanza = "main"
	Cipher = "aes-256-cbc"
)

// Engine keeps the backups of one managed server in one repository. Set the fields, then Prepare it.
//
// Its directory belongs to the server's user and holds
//
//	pgbackrest.conf   made of policy, key and credentials at each Prepare; 0600
//	credentials.json  open an object store; 0600
//	made              the place of the repository that was made last
//	owed              files of the log that the repository has missed
//	log/ run/         pgBackRest's own
//
// and that of all engines of the server the key that opens their repositories (0600, made once), and pgbackrest-archive,
// which archive_command calls: WriteScript.
type Engine struct {
	Server *instance.Server
	Home   string // of all engines; absolute
	Number int    // of the repository in the policy
	Policy func() backup.Policy
	Keys   *Keys // where the key is kept; nil for Home

	borrowed    bool
	credentials backup.Credentials // of a borrowed repository

	mu      sync.Mutex
	program string // "" until Prepare found it
}

// Dir is the directory of the engine: of the first repository that of all.
func (e *Engine) Dir() string {
	if e.Number == 1 {
		return e.Home
	}
	return filepath.Join(e.Home, strconv.Itoa(e.Number))
}

// place is where the repository is, as people write it.
func (e *Engine) place() string { return e.Policy().Place(e.Number) }

var _ backup.Engine = (*Engine)(nil)

// ArchiveSettings are the server's settings for a directory of backups. They do not change when
// pgBackRest comes, goes or moves.
func ArchiveSettings(dir string) map[string]string {
	return map[string]string{
		"archive_mode":    "on",
		"archive_command": inCommand("sh", filepath.Join(dir, archiveScript)) + " %p",
		"archive_timeout": "60s",
	}
}

const (
	// The program refuses an archive_command without its name.
	archiveScript = "pgbackrest-archive"
	configFile    = "pgbackrest.conf"
	keyFile       = "key"
	madeFile      = "made"
)

func (e *Engine) path(name string) string { return filepath.Join(e.Dir(), name) }

// Prepare implements backup.Engine.
func (e *Engine) Prepare(ctx context.Context) error {
	if err := e.makeDirs(); err != nil {
		return err
	}
	program, err := e.find(ctx)
	if err != nil {
		return problem.As(err)
	}
	made, err := e.made()
	if err != nil {
		return err
	}
	text := e.place()
	place, err := backup.ParsePlace(text)
	if err != nil {
		return err
	}
	key, err := e.key(ctx, place)
	if err == nil && made == text {
		err = e.sameKey(key)
	}
	if err != nil {
		return err
	}
	if place.Kind == backup.Directory {
		if made == text && !e.exists(place) {
			return problem.New(problem.NotFound, "backup_repository_missing", "the repository of the backups is gone").On(text).
				WithHint("bring it back, for instance by mounting its file system; to begin an empty one there, remove %s; or name another with twinspan backup policy --repository", e.path(madeFile))
		}
		if err := e.Server.MakeDir(place.Path); err != nil {
			return err
		}
	}
	if err := e.configure(place, key, program); err != nil {
		return err
	}
	if made == text {
		return nil
	}
	// Only there: a repository that goes away at this moment must not be made anew, empty.
	if _, err := e.run(ctx, "stanza-create"); err != nil {
		return err
	}
	return e.Server.PutFile(e.path(madeFile), []byte(text+"\n"))
}

// Follow makes the engine ready to archive, without asking the repository: for a server that stands by, and may lead at any
// moment. Of a repository that was not made yet nothing is prepared.
func (e *Engine) Follow(ctx context.Context) error {
	made, err := e.made()
	if err != nil || made == "" || made != e.place() {
		return err
	}
	if err := e.makeDirs(); err != nil {
		return err
	}
	program, err := e.find(ctx)
	if err != nil {
		return err
	}
	place, err := backup.ParsePlace(made)
	if err != nil {
		return err
	}
	key, err := e.Key(ctx)
	if err == nil {
		err = e.sameKey(key)
	}
	if err != nil {
		return err
	}
	return e.configure(place, key, program)
}

func (e *Engine) makeDirs() error {
	for _, dir := range []string{e.Home, e.Dir(), e.path("log"), e.path("run")} {
		if err := e.Server.MakeDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// find looks for the program and notes it.
func (e *Engine) find(ctx context.Context) (string, error) {
	program, err := Find(ctx, e.Server)
	e.mu.Lock()
	e.program = program
	e.mu.Unlock()
	return program, err
}

// made is the place of the repository that was made last, "" when there was none.
func (e *Engine) made() (string, error) {
	text, err := os.ReadFile(e.path(madeFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", problem.Wrap(err, problem.Unauthorised, "backup_dir_unreadable", "the directory of the backups cannot be read").On(e.Dir()).
			WithHint("run the agent as the user that made it")
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

// exists says whether a directory holds a repository of this instance.
func (e *Engine) exists(place backup.Place) bool {
	for _, name := range []string{"archive.info", "archive.info.copy"} {
		if _, err := os.Stat(filepath.Join(place.Path, "archive", Stanza, name)); err == nil {
			return true
		}
	}
	return false
}

// Forget removes what the engine keeps of its repository, which the policy names no longer. The repository stays, and so does
// the key.
func (e *Engine) Forget() error {
	var failed error
	for _, name := range []string{madeFile, configFile, credentialsFile, gcsKeyFile, owedFile, owedWork} {
		if err := os.Remove(e.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, problem.Wrap(err, problem.Internal, "backup_dir_unreadable", "a file of a former repository cannot be removed").On(e.path(name)).
				WithHint("remove it by hand"))
		}
	}
	return failed
}

// found is the program that Prepare found, or that there is now.
func (e *Engine) found(ctx context.Context) (string, error) {
	e.mu.Lock()
	program := e.program
	e.mu.Unlock()
	if program != "" {
		return program, nil
	}
	return Find(ctx, e.Server)
}

// run runs a command of pgBackRest and returns its standard output.
func (e *Engine) run(ctx context.Context, command string, args ...string) ([]byte, error) {
	program, err := e.found(ctx)
	if err != nil {
		return nil, err
	}
	args = slices.Concat([]string{"--config=" + e.path(configFile), "--stanza=" + Stanza, command}, args)
	out, said, err := e.Server.Work(ctx, e.Server.ClientEnv(), program, args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, nil
	case errors.As(err, &exit) && command == "archive-get" && exit.ExitCode() == 1:
		return nil, missing(args[3])
	case errors.As(err, &exit):
		return out, failure(string(said) + string(out)).On(e.place())
	}
	p := problem.As(err)
	if p.Code == "internal" {
		p = problem.Wrap(err, problem.NotFound, "pgbackrest_missing", "%s cannot be run", program).
			WithHint("install pgBackRest %d.%d or newer again", oldestMajor, oldestMinor)
	}
	return nil, p
}

// Check implements backup.Engine.
func (e *Engine) Check(ctx context.Context, segment string) error {
	return e.Push(ctx, filepath.Join(e.Server.DataDir(), "pg_wal", segment))
}

// Push implements backup.Engine.
func (e *Engine) Push(ctx context.Context, file string) error {
	_, err := e.run(ctx, "archive-push", file)
	return err
}

// Backup implements backup.Engine.
func (e *Engine) Backup(ctx context.Context, kind backup.Kind, expire bool) error {
	args := []string{"--type=" + string(kind)}
	if !expire {
		args = append(args, "--no-expire-auto")
	}
	_, err := e.run(ctx, "backup", args...)
	return err
}

// Expire implements backup.Engine.
func (e *Engine) Expire(ctx context.Context) error {
	_, err := e.run(ctx, "expire")
	return err
}

// Contents implements backup.Engine.
func (e *Engine) Contents(ctx context.Context) (backup.Contents, error) {
	out, err := e.run(ctx, "info", "--output=json")
	if err != nil {
		return backup.Contents{}, err
	}
	s, err := parseInfo(out, Stanza)
	return s.contents(), err
}

// Verify implements backup.Engine.
func (e *Engine) Verify(ctx context.Context) (backup.Report, error) {
	out, err := e.run(ctx, "verify", "--output=text", "--verbose")
	r, understood := parseVerify(string(out))
	if err != nil && !understood {
		return r, err
	}
	if !understood {
		return r, problem.New(problem.Incompatible, unreadableAnswer, "the answer of pgBackRest cannot be read").
			WithHint("report it with the version of pgBackRest")
	}
	segments, err := e.Segments(ctx)
	if err != nil {
		return r, err
	}
	for _, gap := range backup.Gaps(segments) {
		text := "log is missing: " + gap.First
		if gap.Last != gap.First {
			text += " to " + gap.Last
		}
		r.Findings = append(r.Findings, backup.Finding{Text: text})
	}
	return r, nil
}

// Segments implements backup.Engine.
func (e *Engine) Segments(ctx context.Context) ([]string, error) {
	files, err := e.archived(ctx)
	return slices.Sorted(maps.Keys(files)), err
}

// archived lists the segments of the log with their places in the repository.
func (e *Engine) archived(ctx context.Context) (map[string]string, error) {
	dir := path.Join("archive", Stanza)
	out, err := e.run(ctx, "repo-ls", "--recurse", "--output=json", dir)
	if err != nil {
		return nil, err
	}
	files, err := parseSegments(out)
	for name, file := range files {
		files[name] = path.Join(dir, file)
	}
	return files, err
}

// parseSegments reads a list of the files of an archive: segments lie in ID/XXXXXXXXXXXXXXXX/ with their checksum behind their
// name. Those of the last id are the instance's; others are of before it was made anew.
func parseSegments(text []byte) (map[string]string, error) {
	var files map[string]json.RawMessage
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, problem.Wrap(err, problem.Incompatible, unreadableAnswer, "the answer of pgBackRest cannot be read").
			WithHint("report it with the version of pgBackRest")
	}
	ids := map[int]map[string]string{}
	last := 0
	for name := range files {
		id, _, _ := strings.Cut(name, "/")
		n := number(after(id, "-"))
		segment, _, sealed := strings.Cut(path.Base(name), "-")
		if sealed && len(segment) == 24 && n > 0 {
			if ids[n] == nil {
				ids[n] = map[string]string{}
			}
			ids[n][segment] = name
			last = max(last, n)
		}
	}
	return ids[last], nil
}
