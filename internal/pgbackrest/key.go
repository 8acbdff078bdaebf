package pgbackrest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// Key returns the key of the repository. It fails with the code backup_key_lost when there is none.
func (e *Engine) Key() (string, error) {
	text, err := os.ReadFile(e.path(keyFile))
	if err == nil {
		if key := strings.TrimSpace(string(text)); key != "" && !strings.ContainsAny(key, "\n\r\x00") {
			return key, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", problem.Wrap(err, problem.Unauthorised, "backup_dir_unreadable", "the key of the backups cannot be read").On(e.path(keyFile)).
			WithHint("run the agent as the user that made it")
	}
	return "", problem.New(problem.NotFound, "backup_key_lost", "the key of the backups is gone").On(e.path(keyFile)).
		WithHint("put it back from what twinspan backup policy --export wrote; as long as %s is there, it is behind repo1-cipher-pass in it. Without the key the backups are lost: "+
			"then name another repository and remove %s", e.path(configFile), e.path(madeFile))
}

// key returns the key, or makes one where there never was a repository.
func (e *Engine) key(made string) (string, error) {
	key, err := e.Key()
	if problem.CodeOf(err) != "backup_key_lost" || made != "" || e.exists(e.Policy().Repository) {
		return key, err
	}
	secret := make([]byte, 48)
	rand.Read(secret) // never fails (crypto/rand)
	key = base64.RawURLEncoding.EncodeToString(secret)
	return key, e.Server.PutFile(e.path(keyFile), []byte(key+"\n"))
}
