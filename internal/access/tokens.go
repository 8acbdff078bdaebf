package access

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// Entry is one token as its file knows it: without its secret.
type Entry struct {
	ID      string // the first eight digits of its hash
	Role    Role
	Label   string    // what it is for; may be empty
	Created time.Time // zero for one that init made
	sum     [sha256.Size]byte
}

// Hash is the token's SHA-256 in hexadecimal: what its file knows it by.
func (e Entry) Hash() string { return hex.EncodeToString(e.sum[:]) }

// idLength is how many digits of a token's hash name it.
const idLength = 8

// maxLabel bounds what a token is said to be for, in bytes.
const maxLabel = 100

// noteMark begins the comment before a token's line that tells what Entry does. It is
// a comment, so that an agent of an earlier release reads the file as well.
const noteMark = "# made "

// Ensure makes what an API over TCP needs and the directory lacks: certificate and
// key, unless the configuration names others, and a file of tokens without one. host
// is as for Create.
func Ensure(dir, host string, c config.API) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "create the directory api")
	}
	if _, err := os.Stat(filepath.Join(dir, certificateFile)); c.Certificate == "" && errors.Is(err, os.ErrNotExist) {
		if err := makeCertificate(dir, host); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, tokensFile)); errors.Is(err, os.ErrNotExist) {
		if err := config.WriteNew(filepath.Join(dir, tokensFile), []byte(tokensHeader)); err != nil && problem.CodeOf(err) != "already_initialised" {
			return err
		}
	}
	return nil
}

// CreateToken adds a token and returns it; it exists nowhere else. A running agent
// takes it from the next request on.
func CreateToken(dir string, c config.API, role Role, label string) (token string, e Entry, err error) {
	if role != Reader && role != Operator {
		return "", e, problem.New(problem.Invalid, "token_role", "%q is no role", role).WithHint("a token is a reader's or an operator's")
	}
	label = strings.Join(strings.Fields(label), " ")
	if len(label) > maxLabel {
		return "", e, problem.New(problem.Invalid, "token_label", "the label has %d bytes, at most %d", len(label), maxLabel)
	}
	pair, err := Certificate(dir, c)
	if err != nil {
		return "", e, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "", e, problem.Wrap(err, problem.Invalid, "api_certificate_unreadable", "read the certificate of the API")
	}
	token = newToken(sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
	e = Entry{Role: role, Label: label, Created: time.Now().UTC().Truncate(time.Second), sum: sha256.Sum256([]byte(token))}
	e.ID = hex.EncodeToString(e.sum[:])[:idLength]
	return token, e, change(dir, func(text string) (string, error) {
		note := strings.TrimSpace(noteMark + e.Created.Format(time.RFC3339) + " " + label)
		return text + note + "\n" + line(role, token), nil
	})
}

// ListTokens lists the tokens in the order of their file.
func ListTokens(dir string) ([]Entry, error) {
	text, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if errors.Is(err, os.ErrNotExist) {
		return []Entry{}, nil
	}
	if err != nil {
		return nil, tokensUnreadable(err)
	}
	return parseTokens(string(text))
}

// RevokeToken removes the token with the id. A running agent refuses it from the next
// request on.
func RevokeToken(dir, id string) (Entry, error) {
	var gone Entry
	return gone, change(dir, func(text string) (string, error) {
		var kept []string
		lines := strings.SplitAfter(text, "\n")
		for i, l := range lines {
			e, ok, err := parseToken(l)
			if err != nil {
				return "", err
			}
			if !ok || e.ID != strings.ToLower(id) {
				kept = append(kept, l)
				continue
			}
			gone = e
			if i > 0 && strings.HasPrefix(lines[i-1], noteMark) {
				gone.Created, gone.Label = parseNote(lines[i-1])
				kept = kept[:len(kept)-1]
			}
		}
		if gone.ID == "" {
			return "", problem.New(problem.NotFound, "token_unlisted", "there is no token %q", id).WithHint("twinspan api token list shows the ids")
		}
		return strings.Join(kept, ""), nil
	})
}

// change rewrites the file of tokens as a whole; others who change it wait.
func change(dir string, f func(text string) (string, error)) error {
	path := filepath.Join(dir, tokensFile)
	d, err := os.Open(dir)
	if err != nil {
		return tokensUnreadable(err)
	}
	defer d.Close() // which gives the lock back
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return problem.Wrap(err, problem.Resource, "lock_failed", "lock the tokens")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return tokensUnreadable(err)
	}
	out, err := f(string(text))
	if err != nil {
		return err
	}
	return replace(path, []byte(out))
}

// replace writes a file anew, with the owner that it has: root may do it for an agent
// that runs as another user.
func replace(path string, text []byte) error {
	info, err := os.Stat(path)
	if err == nil {
		uid, gid := -1, -1
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
			uid, gid = int(stat.Uid), int(stat.Gid)
		}
		err = durable.WriteOwned(path, text, 0o600, uid, gid)
	}
	if err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "write %s", filepath.Base(path))
	}
	return nil
}

func parseTokens(text string) ([]Entry, error) {
	list := []Entry{}
	before := ""
	n := 0
	for l := range strings.Lines(text) {
		n++
		e, ok, err := parseToken(l)
		if err != nil {
			return nil, problem.Wrap(err, problem.Invalid, "api_tokens_unreadable", "%s:%d", tokensFile, n)
		}
		if ok {
			if strings.HasPrefix(before, noteMark) {
				e.Created, e.Label = parseNote(before)
			}
			list = append(list, e)
		}
		before = l
	}
	return list, nil
}

// parseToken reads one line; ok is false where it holds none.
func parseToken(text string) (e Entry, ok bool, err error) {
	text = strings.TrimSpace(text)
	if text == "" || strings.HasPrefix(text, "#") {
		return e, false, nil
	}
	role, hash, _ := strings.Cut(text, " ")
	sum, err := hex.DecodeString(strings.TrimSpace(hash))
	if err != nil || len(sum) != sha256.Size || role != string(Reader) && role != string(Operator) {
		return e, false, problem.New(problem.Invalid, "api_tokens_unreadable", "a line is not a role and a SHA-256")
	}
	return Entry{ID: hex.EncodeToString(sum)[:idLength], Role: Role(role), sum: [sha256.Size]byte(sum)}, true, nil
}

// parseNote reads the comment before a token. A person may have changed it.
func parseNote(text string) (made time.Time, label string) {
	at, label, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(text, noteMark)), " ")
	made, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return time.Time{}, ""
	}
	return made, label
}

func tokensUnreadable(err error) error {
	return problem.Wrap(err, problem.Invalid, "api_tokens_unreadable", "read the tokens of the API").
		WithHint("twinspan api token create makes one")
}
