package peer

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/twinspan/twinspan/internal/problem"
)

// maxEndpoint bounds the text of an address.
const maxEndpoint = 300

// Peer is another agent that this one trusts.
type Peer struct {
	Name         string    // what it is called here
	AgentID      string    // its own id, a UUID that survives rotations
	Endpoint     string    // host:port where it is dialled; "" when it is waited for
	Others       []string  // where else it is dialled: the members of its instance, as it has said itself
	Fingerprints []string  // the keys that are accepted; two during a rotation, the newest last
	Added        time.Time // when it became trusted
	Certificate  string    // PEM, in the order of Fingerprints; may be empty, for the pins decide
	Grants       []Grant   // what it may ask for, beyond being a peer

	entry uint64 // which adding to the book this is, so that a peer removed and added again is another
}

// NewPeer makes a peer from a certificate file, the by-hand way to trust: both sides
// exchange these files and add them to their books.
func NewPeer(name, endpoint string, certificatePEM []byte) (Peer, error) {
	list, err := parseCertificates(certificatePEM)
	if err != nil {
		return Peer{}, err
	}
	agent, err := certificateAgent(list[0])
	if err != nil {
		return Peer{}, err
	}
	p := Peer{Name: name, AgentID: agent, Endpoint: endpoint, Added: time.Now().UTC().Truncate(time.Second)}
	if p.Name == "" {
		p.Name = list[0].Subject.CommonName
	}
	for _, c := range list {
		p.Fingerprints = append(p.Fingerprints, Fingerprint(c))
		p.Certificate += string(encodeCertificate(c.Raw))
	}
	return p, p.check()
}

// Expires returns when the newest certificate of the peer ends, zero when it is not known.
func (p Peer) Expires() time.Time {
	list, err := parseCertificates([]byte(p.Certificate))
	if err != nil {
		return time.Time{}
	}
	return list[len(list)-1].NotAfter
}

func (p Peer) clone() Peer {
	p.Fingerprints = slices.Clone(p.Fingerprints)
	p.Others = slices.Clone(p.Others)
	p.Grants = slices.Clone(p.Grants)
	for i := range p.Grants {
		p.Grants[i].Operations = slices.Clone(p.Grants[i].Operations)
	}
	return p
}

// addresses are where the peer is dialled, the best first.
func (p Peer) addresses() []string {
	var list []string
	for _, a := range append([]string{p.Endpoint}, p.Others...) {
		if a != "" && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// trusts says whether the peer may show this key.
func (p Peer) trusts(fingerprint string) bool { return slices.Contains(p.Fingerprints, fingerprint) }

// certificateOf returns the PEM of the certificate with this key, "" if there is none.
func (p Peer) certificateOf(fingerprint string) string {
	list, err := parseCertificates([]byte(p.Certificate))
	if err != nil {
		return ""
	}
	for _, c := range list {
		if Fingerprint(c) == fingerprint {
			return string(encodeCertificate(c.Raw))
		}
	}
	return ""
}

func (p Peer) check() error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if !uuidPattern.MatchString(p.AgentID) {
		return problem.New(problem.Invalid, "peer_agent_id", "%.80q is no agent id", p.AgentID).On(p.Name)
	}
	if err := checkEndpoint(p.Endpoint); err != nil {
		return problem.As(err).On(p.Name)
	}
	if len(p.Others) > maxAddresses {
		return problem.New(problem.Invalid, "peer_endpoint", "a peer has at most %d other endpoints", maxAddresses).On(p.Name)
	}
	for _, other := range p.Others {
		if err := checkEndpoint(other); err != nil || other == "" {
			return problem.New(problem.Invalid, "peer_endpoint", "%.80q is no endpoint", other).On(p.Name).WithHint("write HOST:PORT, with brackets around an IPv6 address")
		}
	}
	if len(p.Fingerprints) < 1 || len(p.Fingerprints) > 2 {
		return problem.New(problem.Invalid, "peer_fingerprint", "a peer has one fingerprint, or two during a rotation, not %d", len(p.Fingerprints)).On(p.Name)
	}
	for _, f := range p.Fingerprints {
		if _, err := parseFingerprint(f); err != nil {
			return problem.As(err).On(p.Name)
		}
	}
	if err := checkGrants(p.Grants); err != nil {
		return problem.As(err).On(p.Name)
	}
	if p.Certificate == "" {
		return nil
	}
	return p.checkCertificates()
}

func (p Peer) checkCertificates() error {
	list, err := parseCertificates([]byte(p.Certificate))
	if err != nil {
		return problem.As(err).On(p.Name)
	}
	for _, c := range list {
		agent, err := certificateAgent(c)
		if err != nil || agent != p.AgentID || !p.trusts(Fingerprint(c)) {
			return problem.New(problem.Invalid, "peer_certificate", "certificate and fingerprints do not belong together").On(p.Name)
		}
	}
	return nil
}

// checkEndpoint accepts "" and host:port.
func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(endpoint)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || host == "" || len(endpoint) > maxEndpoint || !printable(endpoint) {
		return problem.New(problem.Invalid, "peer_endpoint", "%.80q is no endpoint", endpoint).
			WithHint("write HOST:PORT, with brackets around an IPv6 address")
	}
	return nil
}

// printable says whether s consists of visible ASCII only.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// peerFile is the content of NAME.toml.
type peerFile struct {
	Name         string    `toml:"name"`
	AgentID      string    `toml:"agent_id"`
	Endpoint     string    `toml:"endpoint" comment:"host:port where this agent dials the peer; empty: the peer dials"`
	Others       []string  `toml:"others,omitempty" comment:"where else it is dialled, as the peer has said itself: the members of its instance"`
	Fingerprints []string  `toml:"fingerprints" comment:"accepted keys (SHA-256 of SubjectPublicKeyInfo); two during a rotation, the newest last"`
	Added        time.Time `toml:"added"`
	Grants       []Grant   `toml:"grants,omitempty" comment:"what the peer may ask for: database (or *), direction (from-here, to-here), operations (link, roles, failover, delete); 'twinspan peer grant' and 'peer revoke' change it"`
}

func encodePeer(p Peer) ([]byte, error) {
	return toml.Marshal(peerFile{Name: p.Name, AgentID: p.AgentID, Endpoint: p.Endpoint, Others: p.Others, Fingerprints: p.Fingerprints, Added: p.Added.UTC(), Grants: p.Grants})
}

// decodePeer reads NAME.toml strictly: an unknown key is an error, so that a
// misspelt one is noticed.
func decodePeer(name string, text []byte) (Peer, error) {
	var f peerFile
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return Peer{}, problem.Wrap(err, problem.Invalid, "peers_broken", "the peer's file cannot be understood").
			WithHint("repair the file, or remove it and add the peer again")
	}
	p := Peer{Name: f.Name, AgentID: f.AgentID, Endpoint: f.Endpoint, Others: f.Others, Fingerprints: f.Fingerprints, Added: f.Added.UTC(), Grants: f.Grants}
	if p.Name != name {
		return Peer{}, problem.New(problem.Invalid, "peers_broken", "the file %s.toml is about a peer called %.80q", name, p.Name)
	}
	return p, p.check()
}
