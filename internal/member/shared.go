package member

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// sharedDirs are the directories of an agent that all members have alike: whichever of them serves is the same agent to its peers.
var sharedDirs = []string{"identity", "peers", "invitations", "api"}

// sharedOfBackups are files of the directory of backups, and of those of its further repositories (package pgbackrest): with them whichever member
// leads goes on with the backups. What the server's user reads of them the agent writes anew.
var sharedOfBackups = func() (list []string) {
	for _, dir := range []string{"backup", "backup/2", "backup/3", "backup/4"} {
		list = append(list, dir+"/credentials.json", dir+"/made", dir+"/verified.json", dir+"/tested.json")
	}
	return append(list, lasting...)
}()

// lasting are those of them that are never removed: without the key no backup can be read. Where
// they are not there, the directory is gone, or its file system is not mounted.
var lasting = []string{"backup/key", "backup/policy.json", "backup/databases.json"}

// goes says whether a file that a directory does not have, but does have the files given, was removed there.
func goes(path string, have Files) bool {
	if !slices.Contains(sharedOfBackups, path) {
		return true
	}
	there := func(path string) bool { _, ok := have[path]; return ok }
	return !slices.Contains(lasting, path) && slices.ContainsFunc(lasting, there)
}

// mostShared bounds one file: etcd takes 1.5 MB at once.
const mostShared = 1 << 20

// sealing hides what is shared from whoever can read etcd's files, the server's user above all: an agent may run as root.
type sealing struct{ cipher.AEAD }

func newSealing(key []byte) (sealing, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealing{}, sealProblem(err)
	}
	aead, err := cipher.NewGCM(block)
	return sealing{aead}, err
}

// seal encrypts a text for one key of etcd: under another one it is not opened.
func (s sealing) seal(key string, text []byte) []byte {
	nonce := make([]byte, s.NonceSize())
	rand.Read(nonce) // never fails (crypto/rand)
	return s.Seal(nonce, nonce, text, []byte(key))
}

func (s sealing) open(key string, sealed []byte) ([]byte, error) {
	if len(sealed) < s.NonceSize() {
		return nil, sealProblem(errors.New("too short"))
	}
	text, err := s.Open(nil, sealed[:s.NonceSize()], sealed[s.NonceSize():], []byte(key))
	if err != nil {
		return nil, sealProblem(err)
	}
	return text, nil
}

func sealProblem(err error) error {
	return problem.Wrap(err, problem.Invalid, "member_broken", "what the members share cannot be read").
		WithHint("remove the member and join it again")
}

// Files are what the members share, by their paths in the agent's directory.
type Files map[string][]byte

// ReadShared reads what a directory has of it. Files that are too long to be shared are left out, and named.
func ReadShared(dir string) (out Files, tooLong []string, err error) {
	out = Files{}
	read := func(path string) error {
		long, err := out.read(dir, path)
		if long {
			tooLong = append(tooLong, path)
		}
		return err
	}
	for _, sub := range sharedDirs {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, sharedProblem(err, sub)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if err := read(sub + "/" + e.Name()); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, path := range sharedOfBackups {
		if err := read(path); err != nil {
			return nil, nil, err
		}
	}
	return out, tooLong, nil
}

// read takes a file that is there, unless it is too long.
func (f Files) read(dir, path string) (tooLong bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, sharedProblem(err, path)
	}
	if len(text) > mostShared {
		return true, nil
	}
	f[path] = text
	return false, nil
}

// WriteShared gives a directory what the members share, and says whether anything differed. Shared
// files that are not among them are removed, but for those that last.
func WriteShared(dir string, files Files) (changed bool, err error) {
	have, _, err := ReadShared(dir)
	if err != nil {
		return false, err
	}
	for path, text := range files {
		if !sharedPath(path) {
			return false, sharedProblem(errors.New("no path of a shared file"), path)
		}
		if old, ok := have[path]; ok && slices.Equal(old, text) {
			continue
		}
		if slices.Contains(sharedOfBackups, path) {
			// These directories are the server's user's; the agent makes them before it needs what is in them.
			if _, err := os.Stat(filepath.Join(dir, filepath.Dir(path))); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700); err != nil {
			return changed, sharedProblem(err, path)
		}
		if err := putFile(filepath.Join(dir, path), text, 0o600); err != nil {
			return changed, err
		}
		changed = true
	}
	for path := range have {
		if _, ok := files[path]; ok || !goes(path, files) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return changed, sharedProblem(err, path)
		}
		changed = true
	}
	return changed, nil
}

// sharedPath says whether a path that came from elsewhere is one of a file in a shared directory.
func sharedPath(path string) bool {
	if slices.Contains(sharedOfBackups, path) {
		return true
	}
	sub, name, ok := strings.Cut(path, "/")
	return ok && slices.Contains(sharedDirs, sub) && name != "" && !strings.ContainsAny(name, "/\\\x00") && !strings.HasPrefix(name, ".")
}

func sharedProblem(err error, path string) error {
	return problem.Wrap(err, problem.Resource, "member_shared", "what the members share cannot be read or written").On(path).
		WithHint("see that the agent may write its directory")
}

// digest tells two states of a file apart.
func digest(text []byte) [sha256.Size]byte { return sha256.Sum256(text) }
