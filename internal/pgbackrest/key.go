package pgbackrest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/problem"
)

// keyPatience bounds a command that prints the key.
const keyPatience = 30 * time.Second

// mostKey bounds the key.
const mostKey = 4096

// Keys is where the operator keeps the key of an instance's backups. Its zero value, and nil, let the agent make one, once, in the Home of the engines.
// All engines of an instance share one; its methods may be used from any goroutine.
type Keys struct {
	File    string // absolute path; it is read whenever the key is needed
	Command string // for the shell, as this process's user; it is run once

	mu   sync.Mutex
	said string // by the command
}

func (k *Keys) theirs() bool { return k != nil && (k.File != "" || k.Command != "") }

// read returns the operator's key. It fails with the codes backup_key_unavailable and backup_key_invalid.
func (k *Keys) read(ctx context.Context) (string, error) {
	if k.Command == "" {
		text, err := os.ReadFile(k.File)
		if err != nil {
			return "", problem.Wrap(err, problem.Unauthorised, "backup_key_unavailable", "the key of the backups cannot be read").On(k.File).
				WithHint("put it back, readable by the agent's user; the log is archived meanwhile with the key of before, as long as the server's machine has it")
		}
		return usableKey(string(text), k.File)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.said != "" {
		return k.said, nil
	}
	ctx, stop := context.WithTimeout(ctx, keyPatience)
	defer stop()
	cmd := exec.CommandContext(ctx, "sh", "-c", k.Command)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", &out, &errs, time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it has not ended within %s", keyPatience)
		}
		// What it printed may be a part of the key.
		said := strings.Join(strings.Fields(strings.ToValidUTF8(errs.String(), "?")), " ")
		return "", problem.New(problem.Unauthorised, "backup_key_unavailable", "the command that prints the key of the backups failed: %v: %.300s", err, said).On("backup_key_command").
			WithHint("run it as the agent's user; it is tried again, and the log is archived meanwhile with the key of before, as long as the server's machine has it")
	}
	key, err := usableKey(out.String(), "backup_key_command")
	k.said = key
	return key, err
}

// usableKey is the key in a text. What would end a line of pgBackRest's configuration is none.
func usableKey(text, from string) (string, error) {
	key := strings.TrimSpace(text)
	if len(key) < 16 || len(key) > mostKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", problem.New(problem.Invalid, "backup_key_invalid", "that is no key for backups: it has to be one line of 16 to %d printable ASCII characters without spaces", mostKey).On(from).
			WithHint("openssl rand -base64 48 makes one; never change it while a repository needs it")
	}
	return key, nil
}

// Key returns the key of the repository. It fails with the code backup_key_lost when there is none, or as Keys does.
func (e *Engine) Key(ctx context.Context) (string, error) {
	if e.Keys.theirs() {
		return e.Keys.read(ctx)
	}
	text, err := os.ReadFile(e.keyPath())
	if err == nil {
		if key := strings.TrimSpace(string(text)); key != "" && !strings.ContainsAny(key, "\n\r\x00") {
			return key, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", problem.Wrap(err, problem.Unauthorised, "backup_dir_unreadable", "the key of the backups cannot be read").On(e.keyPath()).
			WithHint("run the agent as the user that made it")
	}
	return "", problem.New(problem.NotFound, "backup_key_lost", "the key of the backups is gone").On(e.keyPath()).
		WithHint("put it back from what twinspan backup policy --export wrote; as long as %s is there, it is behind repo1-cipher-pass in it. Without the key the backups are lost: "+
			"then name another repository and remove %s", e.path(configFile), e.path(madeFile))
}

func (e *Engine) keyPath() string { return filepath.Join(e.Home, keyFile) }

// MakeKey makes the key where there never was a repository, before any is made, unless the operator has one.
func (e *Engine) MakeKey(ctx context.Context, place backup.Place) error {
	if err := e.makeDirs(); err != nil {
		return err
	}
	_, err := e.key(ctx, place)
	return err
}

// making is held while a key may be made: there is one for all engines.
var making sync.Mutex

// key returns the key, or makes one where there never was a repository.
func (e *Engine) key(ctx context.Context, place backup.Place) (string, error) {
	if e.Keys.theirs() {
		return e.Keys.read(ctx)
	}
	making.Lock()
	defer making.Unlock()
	key, err := e.Key(ctx)
	if problem.CodeOf(err) != "backup_key_lost" {
		return key, err
	}
	ever, failed := everMade(e.Home)
	if failed != nil || ever || place.Kind == backup.Directory && e.exists(place) {
		return "", errors.Join(failed, err)
	}
	secret := make([]byte, 48)
	rand.Read(secret) // never fails (crypto/rand)
	key = base64.RawURLEncoding.EncodeToString(secret)
	return key, e.Server.PutFile(e.keyPath(), []byte(key+"\n"))
}

// sameKey refuses another key of the operator's than the one with which the log of a repository that was made is archived now: with a wrong one nothing more
// could be archived, and the log would fill the disk.
func (e *Engine) sameKey(key string) error {
	if !e.Keys.theirs() {
		return nil
	}
	text, err := os.ReadFile(e.path(configFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return problem.Wrap(err, problem.Unauthorised, "backup_dir_unreadable", "the configuration of the backups cannot be read").On(e.path(configFile)).
			WithHint("run the agent as the user that made it")
	}
	for line := range strings.Lines(string(text)) {
		if used, ok := strings.CutPrefix(strings.TrimSpace(line), cipherPass); ok && used != key {
			return problem.New(problem.Unauthorised, "backup_key_wrong", "the key is another one than that with which the repository was made").On(e.place()).
				WithHint("give the one of before, which is behind %s in %s: the log is archived with it still. For a new key name another repository: twinspan backup policy --repository", cipherPass, e.path(configFile))
		}
	}
	return nil
}
