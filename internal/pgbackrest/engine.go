package pgbackrest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
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

// Engine keeps the backups of one managed server. Set the fields, then Prepare it.
//
// Its directory belongs to the server's user and holds
//
//	key              opens the repository; 0600, made once
//	pgbackrest.conf  made of policy and key at each Prepare; 0600
//	pgbackrest-archive  what archive_command calls
//	made             the path of the repository that was made last
//	log/ run/        pgBackRest's own
type Engine struct {
	Server *instance.Server
	Dir    string // absolute
	Policy func() backup.Policy

	mu      sync.Mutex
	program string // "" until Prepare found it
}

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

func (e *Engine) path(name string) string { return filepath.Join(e.Dir, name) }

// Prepare implements backup.Engine.
func (e *Engine) Prepare(ctx context.Context) error {
	for _, dir := range []string{e.Dir, e.path("log"), e.path("run")} {
		if err := e.Server.MakeDir(dir); err != nil {
			return err
		}
	}
	program, err := Find(ctx, e.Server)
	e.mu.Lock()
	e.program = program
	e.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, e.writeScript(""))
		}
		return problem.As(err)
	}
	made, err := e.made()
	if err != nil {
		return err
	}
	policy := e.Policy()
	key, err := e.key(made)
	if err != nil {
		return err
	}
	if made == policy.Repository && !e.exists(policy.Repository) {
		return problem.New(problem.NotFound, "backup_repository_missing", "the repository of the backups is gone").On(policy.Repository).
			WithHint("bring it back, for instance by mounting its file system; to begin an empty one there, remove %s; or name another with twinspan backup policy --repository", e.path(madeFile))
	}
	if err := e.Server.MakeDir(policy.Repository); err != nil {
		return err
	}
	if err := e.Server.PutFile(e.path(configFile), e.config(policy, key, program)); err != nil {
		return err
	}
	if made != policy.Repository {
		// Only there: a repository that goes away at this moment must not be made anew, empty.
		if _, err := e.run(ctx, "stanza-create"); err != nil {
			return err
		}
		if err := e.Server.PutFile(e.path(madeFile), []byte(policy.Repository+"\n")); err != nil {
			return err
		}
	}
	return e.writeScript(program)
}

// made is the repository that was made last, "" when there was none.
func (e *Engine) made() (string, error) {
	text, err := os.ReadFile(e.path(madeFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", problem.Wrap(err, problem.Unauthorised, "backup_dir_unreadable", "the directory of the backups cannot be read").On(e.Dir).
			WithHint("run the agent as the user that made it")
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

// exists says whether a directory holds a repository of this instance.
func (e *Engine) exists(repository string) bool {
	for _, name := range []string{"archive.info", "archive.info.copy"} {
		if _, err := os.Stat(filepath.Join(repository, "archive", Stanza, name)); err == nil {
			return true
		}
	}
	return false
}

// writeScript brings what archive_command calls up to date. Without a program it keeps the log back
// once there was a repository, and before lets it go.
func (e *Engine) writeScript(program string) error {
	body := "exec " + shell(program, "--config="+e.path(configFile), "--stanza="+Stanza, "archive-push") + ` "$1"`
	if program == "" {
		made, err := e.made()
		if err != nil {
			return err
		}
		body = "exit 0 # nothing was ever backed up"
		if made != "" {
			body = "echo 'pgBackRest is missing: the log cannot be archived' >&2\nexit 1"
		}
	}
	text := "#!/bin/sh\n# Written by twinspan; archive_command calls it with a file of the log.\n" + body + "\n"
	if old, err := os.ReadFile(e.path(archiveScript)); err == nil && string(old) == text {
		return nil
	}
	return e.Server.PutFile(e.path(archiveScript), []byte(text))
}

// config renders pgbackrest.conf. No value has a line end: Policy.Validate and the operating system see to it.
func (e *Engine) config(p backup.Policy, key, program string) []byte {
	lines := []string{
		"# Written by twinspan from " + e.path("policy.json") + " and " + e.path(keyFile),
		"[global]",
		"repo1-path=" + p.Repository,
		"repo1-cipher-type=" + Cipher,
		"repo1-cipher-pass=" + key,
		// One request for many small files, and only the changed parts of large ones.
		"repo1-bundle=y", "repo1-block=y",
		"repo1-retention-full-type=time",
		fmt.Sprintf("repo1-retention-full=%d", p.RetentionDays),
		"compress-type=zst", "compress-level=3",
		"process-max=2",
		"start-fast=y",
		"archive-timeout=120",
		"log-path=" + e.path("log"), "lock-path=" + e.path("run"),
		"log-level-console=off", "log-level-stderr=warn", "log-level-file=info", "log-timestamp=y",
		// Where a wrapper starts it, it must not start itself again without.
		"cmd=" + program,
		"[" + Stanza + "]",
		"pg1-path=" + e.Server.DataDir(),
		fmt.Sprintf("pg1-port=%d", e.Server.Port),
		"pg1-user=" + instance.Superuser,
	}
	if dir := e.Server.SocketDir(); dir != "" {
		lines = append(lines, "pg1-socket-path="+dir)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
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
		return out, failure(string(said) + string(out)).On(e.Policy().Repository)
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
	_, err := e.run(ctx, "archive-push", filepath.Join(e.Server.DataDir(), "pg_wal", segment))
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
	out, err := e.run(ctx, "repo-ls", "--recurse", "--output=json", path.Join("archive", Stanza))
	if err != nil {
		return nil, err
	}
	return parseSegments(out)
}

// parseSegments reads a list of the files of an archive: segments lie in ID/XXXXXXXXXXXXXXXX/ with their checksum behind their
// name. Those of the last id are the instance's; others are of before it was made anew.
func parseSegments(text []byte) ([]string, error) {
	var files map[string]json.RawMessage
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, problem.Wrap(err, problem.Incompatible, unreadableAnswer, "the answer of pgBackRest cannot be read").
			WithHint("report it with the version of pgBackRest")
	}
	ids := map[int][]string{}
	last := 0
	for name := range files {
		id, _, _ := strings.Cut(name, "/")
		n := number(after(id, "-"))
		segment, _, sealed := strings.Cut(path.Base(name), "-")
		if sealed && len(segment) == 24 && n > 0 {
			ids[n] = append(ids[n], segment)
			last = max(last, n)
		}
	}
	slices.Sort(ids[last])
	return slices.Compact(ids[last]), nil
}

// shell quotes words for sh.
func shell(words ...string) string {
	for i, w := range words {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// inCommand is shell for a setting in which the server replaces what follows a percent sign.
func inCommand(words ...string) string { return strings.ReplaceAll(shell(words...), "%", "%%") }
