package catalog

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
)

// keySize is the size of the secret that proves records, in bytes.
const keySize = 32

// OpenKey reads the secret of the agent's directory, in its part identity, by which the agent knows its own records,
// and makes it the first time.
func OpenKey(identity string) (Key, error) {
	path := filepath.Join(identity, "proof.key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		made := make([]byte, keySize)
		rand.Read(made) // never fails (crypto/rand)
		text = []byte(hex.EncodeToString(made) + "\n")
		err = config.WriteNew(path, text)
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.Resource, "proof_key_unreadable", "read or make the key of the links' records")
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, problem.New(problem.Invalid, "proof_key_unreadable", "%s holds no key", path).
			WithHint("bring it back from a backup of the directory; without one, take the links over with an agent in another directory: twinspan init --adopt --dir NEW")
	}
	return key, nil
}
