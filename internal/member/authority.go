package member

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// authorityLife is how long an instance's authority and the certificates of its members hold. Nobody outside the instance trusts them. A member
// that is removed keeps its certificate and the passwords (docs/members.md): its directory is to be deleted, no date shuts it out.
const authorityLife = 20 * 365 * 24 * time.Hour

// Authority vouches for the members of one instance: etcd, Patroni and PostgreSQL of a member let only those in who show a certificate of it.
type Authority struct {
	Certificate string // PEM
	Key         string // PEM, PKCS 8
}

// Issued is a key with a certificate of an authority.
type Issued struct {
	Certificate string // PEM
	Key         string // PEM, PKCS 8
}

// NewAuthority makes one for an instance.
func NewAuthority(name string) (Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Authority{}, authorityProblem(err)
	}
	template, err := certificateOf("members of " + name)
	if err != nil {
		return Authority{}, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	made, err := sign(template, template, key, key)
	return Authority(made), err
}

// Issue makes a key and a certificate for a member that is reached as one of hosts, which are names and addresses. It serves for both ends of a connection.
func (a Authority) Issue(name string, hosts ...string) (Issued, error) {
	pair, err := tls.X509KeyPair([]byte(a.Certificate), []byte(a.Key))
	if err != nil {
		return Issued{}, authorityProblem(err)
	}
	parent, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return Issued{}, authorityProblem(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issued{}, authorityProblem(err)
	}
	template, err := certificateOf(name)
	if err != nil {
		return Issued{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	hosts = append(slices.Clone(hosts), "localhost", "127.0.0.1", "::1")
	slices.Sort(hosts)
	for _, host := range slices.Compact(hosts) {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return sign(template, parent, key, pair.PrivateKey)
}

func certificateOf(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, authorityProblem(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(authorityLife),
	}, nil
}

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer any) (Issued, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Issued{}, authorityProblem(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Issued{}, authorityProblem(err)
	}
	return Issued{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
	}, nil
}

// dialing returns what a client of a member's etcd or Patroni needs.
func dialing(authority string, mine Issued) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(authority)) {
		return nil, problem.New(problem.Invalid, "member_broken", "the certificate of the members' authority cannot be read").
			WithHint("restore the agent's directory, or remove the member and join it again")
	}
	pair, err := tls.X509KeyPair([]byte(mine.Certificate), []byte(mine.Key))
	if err != nil {
		return nil, authorityProblem(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

func authorityProblem(err error) error {
	return problem.Wrap(err, problem.Invalid, "member_broken", "the keys of the members").
		WithHint("restore the agent's directory, or remove the member and join it again")
}
