package instance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// certificateLife is how long a server's own certificate holds. Nobody checks it by its
// issuer: it makes connections secret, as that of Debian's clusters does.
const certificateLife = 10 * 365 * 24 * time.Hour

// writeCertificate gives the data directory a key and a certificate that vouches for
// itself, where ssl_cert_file and ssl_key_file have them by default.
func writeCertificate(owner account, data string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "server_system_error", "make the server's key")
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return problem.Wrap(err, problem.Internal, "server_system_error", "make the server's certificate")
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "server_system_error", "make the server's certificate")
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "server_system_error", "write the server's key")
	}
	if err := writeFile(owner, filepath.Join(data, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return writeFile(owner, filepath.Join(data, "server.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
}
