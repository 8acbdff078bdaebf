// Package access decides who may use the REST interface over TCP: it makes the
// certificate and the tokens, and says which role a token has.
//
// A token is "twinspan.SECRET.PIN". SECRET is 32 random bytes; the agent keeps
// their SHA-256 alone, which is enough for a secret that nobody can guess. PIN is
// the SHA-256 of the public key of the agent's certificate, by which package
// client knows the agent without an authority. Both are base64url without padding.
package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
)

// Role says what the holder of a token may do.
type Role string

// The roles.
const (
	Reader   Role = "reader"   // may look, but not at values of rows
	Operator Role = "operator" // may do everything
)

// The files in the directory that Create fills.
const (
	certificateFile = "certificate.pem"
	keyFile         = "key.pem"
	tokensFile      = "tokens"
)

// validity of the certificate. It is pinned by its key, so its end is a formality.
const validity = 10 * 365 * 24 * time.Hour

// Tokens are the secrets that Create made; they exist nowhere else.
type Tokens struct{ Operator, Reader string }

// Create makes certificate, key and tokens in a new directory of mode 0700. host
// is the name or address that the certificate is for, beside this machine's own.
func Create(dir, host string) (Tokens, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Tokens{}, problem.Wrap(err, problem.Resource, "dir_not_writable", "create the directory api")
	}
	if err := makeCertificate(dir, host); err != nil {
		return Tokens{}, err
	}
	pin, err := pinOf(filepath.Join(dir, certificateFile))
	if err != nil {
		return Tokens{}, err
	}
	tokens := Tokens{Operator: newToken(pin), Reader: newToken(pin)}
	list := tokensHeader + line(Operator, tokens.Operator) + line(Reader, tokens.Reader)
	return tokens, config.WriteNew(filepath.Join(dir, tokensFile), []byte(list))
}

// tokensHeader begins the file of the tokens.
const tokensHeader = "# Tokens of the API: a role and the SHA-256 of the token. Remove a line to end a token: it is refused at once.\n"

// makeCertificate makes the key and a certificate of it.
func makeCertificate(dir, host string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("key of the API: %w", err)
	}
	certificate, err := selfSigned(key, host, time.Now())
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key of the API: %w", err)
	}
	// The certificate last: with it the two are there.
	for _, file := range []struct {
		name string
		text []byte
	}{
		{keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})},
		{certificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})},
	} {
		path := filepath.Join(dir, file.name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an attempt that did not end
			return problem.Wrap(err, problem.Resource, "dir_not_writable", "write %s", file.name)
		}
		if err := config.WriteNew(path, file.text); err != nil {
			return err
		}
	}
	return nil
}

// pinOf is the SHA-256 of the public key of a certificate.
func pinOf(path string) (pin [sha256.Size]byte, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return pin, problem.Wrap(err, problem.Invalid, "api_certificate_unreadable", "read the certificate of the API")
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return pin, problem.New(problem.Invalid, "api_certificate_unreadable", "the certificate of the API is not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return pin, problem.Wrap(err, problem.Invalid, "api_certificate_unreadable", "read the certificate of the API")
	}
	return sha256.Sum256(leaf.RawSubjectPublicKeyInfo), nil
}

func newToken(pin [sha256.Size]byte) string {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails (crypto/rand)
	encode := base64.RawURLEncoding.EncodeToString
	return "twinspan." + encode(secret) + "." + encode(pin[:])
}

func line(role Role, token string) string {
	sum := sha256.Sum256([]byte(token))
	return string(role) + " " + hex.EncodeToString(sum[:]) + "\n"
}

func selfSigned(key *ecdsa.PrivateKey, host string, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("certificate of the API: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "twinspan API"},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	names := []string{host}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the API: %w", err)
	}
	return der, nil
}

// Certificate loads what the API shows: the configured files, or those that
// Create made in dir.
func Certificate(dir string, c config.API) (tls.Certificate, error) {
	certificate, key := c.Certificate, c.Key
	if certificate == "" {
		certificate, key = filepath.Join(dir, certificateFile), filepath.Join(dir, keyFile)
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, problem.Wrap(err, problem.Invalid, "api_certificate_unreadable", "load the certificate of the API").
			WithHint("the agent makes one where there is none; or set api.certificate and api.key in twinspan.toml to PEM files")
	}
	return pair, nil
}

// Guard knows the tokens, as their file has them now. It is safe for concurrent use.
type Guard struct {
	path string

	mu    sync.Mutex
	state fileState
	known map[[sha256.Size]byte]Entry // nil where the file cannot be read
}

// fileState tells whether a file is still the one that was read.
type fileState struct {
	changed time.Time
	size    int64
	inode   uint64
}

// LoadGuard reads the tokens in the directory that Create or Ensure filled.
func LoadGuard(dir string) (*Guard, error) {
	g := &Guard{path: filepath.Join(dir, tokensFile)}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g, g.refreshLocked()
}

// refreshLocked reads the file again when it has changed. A file that cannot be read or
// understood lets nobody in.
func (g *Guard) refreshLocked() error {
	info, err := os.Stat(g.path)
	if err != nil {
		g.known, g.state = nil, fileState{}
		return tokensUnreadable(err)
	}
	state := fileState{changed: info.ModTime(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		state.inode = stat.Ino
	}
	if g.known != nil && state == g.state {
		return nil
	}
	g.known, g.state = nil, fileState{}
	text, err := os.ReadFile(g.path)
	if err != nil {
		return tokensUnreadable(err)
	}
	list, err := parseTokens(string(text))
	if err != nil {
		return err
	}
	g.known, g.state = map[[sha256.Size]byte]Entry{}, state
	for _, e := range list {
		g.known[e.sum] = e
	}
	return nil
}

// Role returns what the holder of a token may do, and false for a token that is
// not known, or is no more.
func (g *Guard) Role(token string) (Role, bool) {
	e, known := g.Find(token)
	return e.Role, known
}

// Find returns what is known of a token, and false for one that is not known, or is no
// more. Hashes are looked up, so the time tells nothing about a token.
func (g *Guard) Find(token string) (Entry, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refreshLocked(); err != nil {
		return Entry{}, false
	}
	e, known := g.known[sha256.Sum256([]byte(token))]
	return e, known
}

// Named returns what is known of the token whose Hash is given, and false for one that is
// not known, or is no more.
func (g *Guard) Named(hash string) (Entry, bool) {
	sum, err := hex.DecodeString(hash)
	if err != nil || len(sum) != sha256.Size {
		return Entry{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refreshLocked(); err != nil {
		return Entry{}, false
	}
	e, known := g.known[[sha256.Size]byte(sum)]
	return e, known
}
