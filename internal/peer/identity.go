package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// The files of an identity, in DIR/identity. The key is written last when an identity is
// made, and its replacement is the one step that completes a rotation, so key.pem decides
// which certificate is the current one.
const (
	identityDir         = "identity"
	keyFile             = "key.pem"
	certificateFile     = "certificate.pem"
	agentIDFile         = "agent-id"
	nextKeyFile         = "next-key.pem"
	nextCertificateFile = "next-certificate.pem"
	rotationFile        = "rotation.toml"
)

// Identity is what an agent proves itself with: a private key, which never leaves
// the agent's directory, a certificate signed with it, and a random id that stays
// the same over rotations. During a rotation it holds the next key too.
//
// An Identity is safe for concurrent use.
type Identity struct {
	dir     string // the agent's directory
	name    string
	agentID string

	mu        sync.RWMutex
	current   credential
	next      *credential
	confirmed map[string]bool // by name: peers that have pinned the next key
}

// credential is one key with its certificate.
type credential struct {
	key         ed25519.PrivateKey
	certificate *x509.Certificate
	tls         tls.Certificate
	pem         []byte
	fingerprint string
}

// CreateIdentity makes a key, a certificate and an agent id in the identity directory
// of an agent's directory, which must exist. An identity that exists is never replaced:
// that is a problem of kind Conflict.
func CreateIdentity(dir, name string) (*Identity, error) { return AdoptIdentity(dir, name, newUUID()) }

// AdoptIdentity is CreateIdentity for an agent that takes the place of another: it has that
// one's id, and a key of its own, to which the peers' operators have to agree.
func AdoptIdentity(dir, name, agentID string) (*Identity, error) {
	if !uuidPattern.MatchString(agentID) {
		return nil, problem.New(problem.Invalid, "peer_agent_id", "%.80q is no agent id", agentID)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	sub := filepath.Join(dir, identityDir)
	if _, err := os.Lstat(filepath.Join(sub, keyFile)); err == nil {
		return nil, problem.New(problem.Conflict, "identity_exists", "the agent in this directory has an identity already").On(dir).
			WithHint("choose another directory for another agent")
	}
	if err := os.MkdirAll(sub, 0o700); err != nil {
		return nil, identityProblem(err, dir, "make directory")
	}
	id := &Identity{dir: dir, name: name, agentID: agentID}
	c, err := newCredential(name, id.agentID, time.Now())
	if err != nil {
		return nil, identityProblem(err, dir, "make key")
	}
	if err := durable.Write(id.path(agentIDFile), []byte(id.agentID+"\n"), 0o644); err != nil {
		return nil, identityProblem(err, dir, "write agent id")
	}
	if err := id.writeCredential(c, keyFile, certificateFile); err != nil {
		return nil, err
	}
	return LoadIdentity(dir)
}

// LoadIdentity reads the identity of an agent's directory and completes a rotation that was
// cut off between its files. A key that others can read is refused.
func LoadIdentity(dir string) (*Identity, error) {
	id := &Identity{dir: dir}
	key, err := id.readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.New(problem.NotFound, "identity_missing", "no agent lives in this directory").On(dir).
			WithHint("make one with 'twinspan init'")
	}
	if err != nil {
		return nil, err
	}
	text, err := readFile(id.path(agentIDFile))
	if err != nil {
		return nil, identityProblem(err, dir, "read agent id")
	}
	id.agentID = strings.TrimSpace(string(text))
	if !uuidPattern.MatchString(id.agentID) {
		return nil, problem.New(problem.Invalid, "identity_broken", "%s holds no UUID", agentIDFile).On(dir)
	}
	if err := id.loadCurrent(key); err != nil {
		return nil, err
	}
	id.name = id.current.certificate.Subject.CommonName
	if err := id.loadNext(); err != nil {
		return nil, err
	}
	return id, nil
}

// Reread reads the keys anew, where another member of the instance has changed them. On an error they stay as they were.
func (id *Identity) Reread() error {
	next, err := LoadIdentity(id.dir)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.current, id.next, id.confirmed = next.current, next.next, next.confirmed
	return nil
}

// loadCurrent finds the key's certificate. It is the next one when a rotation was
// cut off right after its deciding step.
func (id *Identity) loadCurrent(key ed25519.PrivateKey) error {
	c, err := id.readCredential(key, certificateFile)
	if err == nil {
		id.current = c
		return nil
	}
	c, nextErr := id.readCredential(key, nextCertificateFile)
	if nextErr != nil {
		return err
	}
	id.current = c
	return id.settleFiles()
}

func (id *Identity) loadNext() error {
	key, err := id.readKey(nextKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := id.readCredential(key, nextCertificateFile)
	if err != nil {
		return err
	}
	confirmed, err := id.readConfirmed()
	if err != nil {
		return err
	}
	id.next, id.confirmed = &c, confirmed
	return nil
}

// Name returns the agent's name.
func (id *Identity) Name() string { return id.name }

// AgentID returns the agent's id, a UUID made when the identity was.
func (id *Identity) AgentID() string { return id.agentID }

// Dir returns the agent's directory.
func (id *Identity) Dir() string { return id.dir }

// Fingerprint returns the fingerprint of the current key.
func (id *Identity) Fingerprint() string { return id.credential().fingerprint }

// CertificatePEM returns the certificate to give to others. During a rotation the next
// certificate follows the current one, so that whoever adds it by hand pins both.
func (id *Identity) CertificatePEM() []byte {
	id.mu.RLock()
	defer id.mu.RUnlock()
	if id.next == nil {
		return bytes.Clone(id.current.pem)
	}
	return append(bytes.Clone(id.current.pem), id.next.pem...)
}

// Expires returns when the current certificate ends. Peers pin keys and go on accepting
// an expired one; the date is there to raise an alarm before other tools object.
func (id *Identity) Expires() time.Time { return id.credential().certificate.NotAfter }

func (id *Identity) credential() credential {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.current
}

// certificate is what a TLS handshake shows: the current one until a rotation
// is complete.
func (id *Identity) certificate() *tls.Certificate {
	c := id.credential().tls
	return &c
}

// owns says whether a fingerprint is of one of the agent's own keys.
func (id *Identity) owns(fingerprint string) bool {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return fingerprint == id.current.fingerprint || id.next != nil && fingerprint == id.next.fingerprint
}

func (id *Identity) path(file string) string { return filepath.Join(id.dir, identityDir, file) }

func newCredential(name, agentID string, now time.Time) (credential, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return credential{}, err
	}
	der, err := makeCertificate(key, name, agentID, now)
	if err != nil {
		return credential{}, err
	}
	return makeCredential(key, encodeCertificate(der))
}

func makeCredential(key ed25519.PrivateKey, text []byte) (credential, error) {
	list, err := parseCertificates(text)
	if err != nil {
		return credential{}, err
	}
	c := list[0]
	if !key.Public().(ed25519.PublicKey).Equal(c.PublicKey) {
		return credential{}, problem.New(problem.Invalid, "identity_broken", "key and certificate do not belong together")
	}
	return credential{
		key: key, certificate: c, pem: encodeCertificate(c.Raw), fingerprint: Fingerprint(c),
		tls: tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c},
	}, nil
}

// writeCredential writes the certificate, then the key.
func (id *Identity) writeCredential(c credential, keyName, certificateName string) error {
	text, err := marshalKey(c.key)
	if err != nil {
		return identityProblem(err, id.dir, "encode key")
	}
	if err := durable.Write(id.path(certificateName), c.pem, 0o644); err != nil {
		return identityProblem(err, id.dir, "write certificate")
	}
	if err := durable.Write(id.path(keyName), text, 0o600); err != nil {
		return identityProblem(err, id.dir, "write key")
	}
	return nil
}

func (id *Identity) readKey(file string) (ed25519.PrivateKey, error) {
	path := id.path(file)
	info, err := os.Stat(path)
	if err != nil {
		return nil, identityProblem(err, id.dir, "read key")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, problem.New(problem.Unauthorised, "identity_exposed", "the agent's key can be read by others (mode %04o)", info.Mode().Perm()).
			On(path).WithHint("set its mode to 0600; if others had access, make a new key with 'twinspan peer rotate'")
	}
	text, err := readFile(path)
	if err != nil {
		return nil, identityProblem(err, id.dir, "read key")
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, problem.Wrap(err, problem.Invalid, "identity_broken", "the agent's key cannot be read").On(path)
	}
	return key, nil
}

func (id *Identity) readCredential(key ed25519.PrivateKey, file string) (credential, error) {
	text, err := readFile(id.path(file))
	if err != nil {
		return credential{}, identityProblem(err, id.dir, "read certificate")
	}
	c, err := makeCredential(key, text)
	if err != nil {
		return credential{}, identityProblem(err, id.dir, file)
	}
	if agent, err := certificateAgent(c.certificate); err != nil || agent != id.agentID {
		return credential{}, problem.New(problem.Invalid, "identity_broken", "%s is of another agent", file).On(id.dir)
	}
	return c, nil
}

func identityProblem(err error, dir, what string) error {
	return problem.Wrap(err, problem.Invalid, "identity_broken", "identity: %s", what).On(dir)
}
