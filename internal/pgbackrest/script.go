package pgbackrest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// Files that a repository has missed: the script appends their names to owedFile, and leaves the repository out as long as
// that is there. Who brings them moves it to owedWork.
const (
	owedFile = "owed"
	owedWork = "owed.work"
)

// WriteScript brings what archive_command calls up to date with the engines of a server. A file of the log is kept where one
// repository has it; a repository that does not take it is left out until somebody has brought it what it has missed
// (Owed), so that it stops neither the others nor the server. Where none takes it, the server keeps it. Without a program the
// log is kept back once there was a repository, and before is let go.
func WriteScript(ctx context.Context, server *instance.Server, home string, engines []*Engine) error {
	made := slices.DeleteFunc(slices.Clone(engines), func(e *Engine) bool {
		place, err := e.made()
		return err == nil && (place == "" || place != e.place())
	})
	program := ""
	if len(made) > 0 {
		var err error
		if program, err = Find(ctx, server); ctx.Err() != nil {
			return err
		}
	}
	ever, err := everMade(home)
	if err != nil {
		return err
	}
	text := []byte("#!/bin/sh\n# Written by twinspan; archive_command calls it with a file of the log.\n" + script(program, ever, made))
	path := filepath.Join(home, archiveScript)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return server.PutFile(path, text)
}

func script(program string, ever bool, made []*Engine) string {
	push := func(e *Engine) string {
		return shell(program, "--config="+e.path(configFile), "--stanza="+Stanza, "archive-push") + ` "$1"`
	}
	switch {
	case !ever:
		return "exit 0 # nothing was ever backed up\n"
	case len(made) == 0:
		return "echo 'no repository is ready: the log cannot be archived' >&2\nexit 1\n"
	case program == "":
		return "echo 'pgBackRest is missing: the log cannot be archived' >&2\nexit 1\n"
	case len(made) == 1:
		return "exec " + push(made[0]) + "\n"
	}
	var b strings.Builder
	b.WriteString("kept=1\nname=${1##*/}\n")
	for _, e := range made {
		owed := shell(e.path(owedFile))
		b.WriteString("if [ -e " + owed + " ]; then echo \"$name\" >>" + owed + " || exit 1\n" +
			"elif " + push(e) + "; then kept=0\nelse echo \"$name\" >>" + owed + " || exit 1\nfi\n")
	}
	b.WriteString("[ $kept = 0 ] && exit 0\n")
	for _, e := range made {
		b.WriteString(push(e) + " && kept=0\n")
	}
	b.WriteString("exit $kept\n")
	return b.String()
}

// everMade says whether there ever was a repository.
func everMade(home string) (bool, error) {
	for _, pattern := range []string{madeFile, filepath.Join("*", madeFile)} {
		found, err := fs.Glob(os.DirFS(home), pattern)
		if err != nil {
			return false, problem.Wrap(err, problem.Internal, "internal", "look for repositories")
		}
		if len(found) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// Owed implements backup.Engine.
func (e *Engine) Owed(lift bool) ([]string, error) {
	work, err := readLines(e.path(owedWork))
	if err != nil {
		return nil, err
	}
	var more []string
	switch {
	case !lift:
		more, err = readLines(e.path(owedFile))
	case work == nil:
		if err := os.Rename(e.path(owedFile), e.path(owedWork)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, unreadable(err, e.path(owedFile))
		}
		more, err = readLines(e.path(owedWork))
	}
	all := append(work, more...)
	slices.Sort(all)
	return slices.Compact(all), err
}

// Paid implements backup.Engine.
func (e *Engine) Paid() error {
	if err := os.Remove(e.path(owedWork)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return unreadable(err, e.path(owedWork))
	}
	return nil
}

func readLines(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(err, file)
	}
	return strings.Fields(string(text)), nil
}

func unreadable(err error, file string) error {
	return problem.Wrap(err, problem.Unauthorised, "backup_dir_unreadable", "the directory of the backups cannot be used").On(file).
		WithHint("run the agent as the user that made it")
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
