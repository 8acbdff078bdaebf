package httpapi

import (
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/access"
)

// FacePath begins the paths of what browsers are shown.
const FacePath = "/ui/"

// Inside is how a face within the agent's process learns whom a token lets in, and asks
// what the REST interface answers to its holder. It is safe for concurrent use.
type Inside struct {
	guard       *access.Guard
	certificate *x509.Certificate
	listen      string // host that is listened on
	answer      func(access.Entry) http.Handler
}

// Find returns what is known of a token.
func (i *Inside) Find(token string) (access.Entry, bool) { return i.guard.Find(token) }

// Named returns what is known of the token with the hash now.
func (i *Inside) Named(hash string) (access.Entry, bool) { return i.guard.Named(hash) }

// As answers requests as the REST interface does those with the token of the entry from an
// address, HOST:PORT. Answers are held in memory.
func (i *Inside) As(e access.Entry, address string) http.RoundTripper {
	return client.Within(i.answer(e), address)
}

// Welcome makes the connection of a request one of somebody known, who keeps his place
// when strangers crowd the interface.
func (i *Inside) Welcome(r *http.Request) { welcome(r) }

// Serves says whether the agent is known by a host, as a request's Host has it: an address,
// localhost, the machine's name, or a name of the certificate. Another one is a page's
// elsewhere that had its own name lead here.
func (i *Inside) Serves(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if machine, err := os.Hostname(); err == nil && strings.EqualFold(host, machine) {
		return true
	}
	return net.ParseIP(host) != nil || strings.EqualFold(host, "localhost") || strings.EqualFold(host, i.listen) ||
		i.certificate != nil && i.certificate.VerifyHostname(host) == nil
}

// faced puts a face beside the REST interface. Browsers that are given the bare address
// are led to it.
func faced(face, others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, FacePath):
			face.ServeHTTP(w, r)
		case r.URL.Path == "/" && looksOnly(r) && strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, FacePath, http.StatusSeeOther)
		default:
			others.ServeHTTP(w, r)
		}
	})
}
