package peer

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// certificateLife is how long a new certificate is valid.
const certificateLife = 10 * 365 * 24 * time.Hour

// fingerprintSize is the length of a fingerprint before it is printed.
const fingerprintSize = sha256.Size

// uuidPrefix stands before the agent id in a certificate's URI (RFC 9562, 4).
const uuidPrefix = "urn:uuid:"

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// ValidName says whether s may name an agent: a letter or digit, then letters,
// digits, dot, dash and underscore, 63 characters at most. Such a name is also a
// file's name.
func ValidName(s string) bool { return namePattern.MatchString(s) }

func checkName(s string) error {
	if ValidName(s) {
		return nil
	}
	return problem.New(problem.Invalid, "peer_name", "%.80q is no name for an agent", s).
		WithHint("begin with a letter or digit and use letters, digits, '.', '-' and '_', 63 at most")
}

// Fingerprint returns the pin of a certificate's key: "SHA256:" and the unpadded
// base64 of the hash of its SubjectPublicKeyInfo. It stays the same when
// a certificate is renewed with the same key.
func Fingerprint(c *x509.Certificate) string {
	return printFingerprint(sha256.Sum256(c.RawSubjectPublicKeyInfo))
}

func printFingerprint(sum [fingerprintSize]byte) string {
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

func parseFingerprint(s string) ([fingerprintSize]byte, error) {
	var sum [fingerprintSize]byte
	text, ok := strings.CutPrefix(s, "SHA256:")
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(b) != fingerprintSize {
		return sum, problem.New(problem.Invalid, "peer_fingerprint", "%.80q is no fingerprint", s)
	}
	copy(sum[:], b)
	return sum, nil
}

// newUUID makes a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // crypto/rand.Read never fails: it ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// makeCertificate signs a certificate for the key with the key itself. Name and agent
// id stand in it, so that a file alone is enough to know an agent.
func makeCertificate(key ed25519.PrivateKey, name, agentID string, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	id, err := url.Parse(uuidPrefix + agentID)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{CommonName: name, Organization: []string{"twinspan agent"}},
		URIs:                  []*url.URL{id},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// parseCertificates reads the certificates of a PEM text, at least one.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	bad := func(why string) error {
		return problem.New(problem.Invalid, "peer_certificate", "not an agent's certificate: %s", why).
			WithHint("use the file that 'twinspan peer export' writes")
	}
	if len(text) > maxFile {
		return nil, bad("too long")
	}
	var list []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, bad("the file holds something else than certificates")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, bad("it cannot be parsed")
		}
		if err := checkCertificate(c); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, bad("no PEM block of type CERTIFICATE")
	}
	return list, nil
}

// checkCertificate checks that an agent made the certificate: signed with its own
// key, with a name and an agent id. Whether the key is trusted is another question.
func checkCertificate(c *x509.Certificate) error {
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		return problem.New(problem.Invalid, "peer_certificate", "the certificate is not signed with its own key")
	}
	if _, err := certificateAgent(c); err != nil {
		return err
	}
	return checkName(c.Subject.CommonName)
}

// certificateAgent returns the agent id in a certificate.
func certificateAgent(c *x509.Certificate) (string, error) {
	if len(c.URIs) == 1 {
		if id, ok := strings.CutPrefix(c.URIs[0].String(), uuidPrefix); ok && uuidPattern.MatchString(id) {
			return id, nil
		}
	}
	return "", problem.New(problem.Invalid, "peer_certificate", "the certificate names no agent")
}

// checkSignature verifies a signature of signed bytes made by the certificate's key.
func checkSignature(c *x509.Certificate, signed, signature []byte) error {
	algorithm := x509.PureEd25519
	if c.PublicKeyAlgorithm != x509.Ed25519 {
		algorithm = x509.ECDSAWithSHA256
	}
	return c.CheckSignature(algorithm, signed, signature)
}

func marshalKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseKey reads a PKCS#8 key. Its errors say nothing of the content.
func parseKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("no PEM block of type PRIVATE KEY")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("no PKCS#8 key")
	}
	k, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("no Ed25519 key")
	}
	return k, nil
}
