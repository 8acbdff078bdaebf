// Package access decides who may use the REST interface over TCP: it makes the
// certificate and the tokens, and says which role a token has.
//
// A token is "twinspan.SECRET.PIN". SECRET is 32 random bytes; the agent keeps
// their SHA-256 alone, which is enough for a secret that nobody can guess. PIN is
// the SHA-256 of the public key of the agent's certificate, by which package
// client knows the agent without an authority. Both are base64url without padding.
package access

import (
	"bufio"
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
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
)

// Role says what the holder of a token may do.
type Role string

// The roles.
const (
	Reader   Role = "reader"   // may look
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Tokens{}, fmt.Errorf("key of the API: %w", err)
	}
	certificate, err := selfSigned(key, host, time.Now())
	if err != nil {
		return Tokens{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Tokens{}, fmt.Errorf("key of the API: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return Tokens{}, fmt.Errorf("key of the API: %w", err)
	}
	pin := sha256.Sum256(public)
	tokens := Tokens{Operator: newToken(pin), Reader: newToken(pin)}
	list := "# Tokens of the API: a role and the SHA-256 of the token. Remove a line to end a token.\n"
	list += line(Operator, tokens.Operator) + line(Reader, tokens.Reader)
	for name, text := range map[string][]byte{
		keyFile:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		certificateFile: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		tokensFile:      []byte(list),
	} {
		if err := config.WriteNew(filepath.Join(dir, name), text); err != nil {
			return Tokens{}, err
		}
	}
	return tokens, nil
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
			WithHint("init --api makes one; or set api.certificate and api.key in twinspan.toml to PEM files")
	}
	return pair, nil
}

// Guard knows the tokens. It is safe for concurrent use.
type Guard struct {
	roles map[[sha256.Size]byte]Role
}

// maxLine bounds a line of the tokens' file.
const maxLine = 1 << 10

// LoadGuard reads the tokens in the directory that Create filled.
func LoadGuard(dir string) (*Guard, error) {
	f, err := os.Open(filepath.Join(dir, tokensFile))
	if err != nil {
		return nil, problem.Wrap(err, problem.Invalid, "api_tokens_unreadable", "read the tokens of the API").
			WithHint("init --api makes them")
	}
	defer f.Close()
	g := &Guard{roles: map[[sha256.Size]byte]Role{}}
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, maxLine), maxLine)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		role, hash, _ := strings.Cut(text, " ")
		sum, err := hex.DecodeString(strings.TrimSpace(hash))
		if err != nil || len(sum) != sha256.Size || role != string(Reader) && role != string(Operator) {
			return nil, problem.New(problem.Invalid, "api_tokens_unreadable", "%s:%d: not a role and a SHA-256", f.Name(), n)
		}
		g.roles[[sha256.Size]byte(sum)] = Role(role)
	}
	if err := lines.Err(); err != nil {
		return nil, problem.Wrap(err, problem.Invalid, "api_tokens_unreadable", "read the tokens of the API")
	}
	return g, nil
}

// Role returns what the holder of a token may do, and false for a token that is
// not known. Hashes are looked up, so the time tells nothing about a token.
func (g *Guard) Role(token string) (Role, bool) {
	role, known := g.roles[sha256.Sum256([]byte(token))]
	return role, known
}
