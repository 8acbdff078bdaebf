package pgbackrest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/problem"
)

// Key returns the key of the repository. It fails with the code backup_key_lost when there is none.
func (e *Engine) Key() (string, error) {
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

// MakeKey makes the key where there never was a repository, before any is made.
func (e *Engine) MakeKey(place backup.Place) error {
	if err := e.makeDirs(); err != nil {
		return err
	}
	_, err := e.key(place)
	return err
}

// making is held while a key may be made: there is one for all engines.
var making sync.Mutex

// key returns the key, or makes one where there never was a repository.
func (e *Engine) key(place backup.Place) (string, error) {
	making.Lock()
	defer making.Unlock()
	key, err := e.Key()
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
