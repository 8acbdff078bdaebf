package peer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	peersDir = "peers"
	// maxPeers bounds the book, so that a directory of anything else is noticed.
	maxPeers = 10_000
)

// Book is the directory of trusted peers, DIR/peers: NAME.toml and NAME.pem for each. The
// files are the truth and can be read by a person; while an agent runs, it alone writes
// them. A Book is safe for concurrent use; each change is durable when the method returns.
type Book struct {
	dir string

	mu      sync.Mutex
	peers   map[string]Peer // by name
	changed chan struct{}   // closed and replaced at each change
	entries uint64          // how many peers were added
}

// OpenBook reads the peers of an agent's directory. A file that cannot be understood is a
// problem that names it: a pin that is silently missing would look like a stranger.
func OpenBook(dir string) (*Book, error) {
	b := &Book{dir: filepath.Join(dir, peersDir), changed: make(chan struct{})}
	return b, b.Reread()
}

// Reread reads the directory anew, where another member of the instance has changed it. On an error the book stays as it was.
func (b *Book) Reread() error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return bookProblem(err, "make directory")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next := &Book{dir: b.dir, peers: map[string]Peer{}, entries: b.entries}
	if err := next.fill(); err != nil {
		return err
	}
	for name, p := range next.peers {
		if old, ok := b.peers[name]; ok && slices.Equal(old.Fingerprints, p.Fingerprints) {
			p.entry = old.entry
			next.peers[name] = p
		}
	}
	b.peers, b.entries = next.peers, next.entries
	b.announceLocked()
	return nil
}

// fill reads all files.
func (b *Book) fill() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return bookProblem(err, "read directory")
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".toml")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		p, err := b.read(name)
		if err != nil {
			return err
		}
		if err := b.clashLocked(p); err != nil {
			return err
		}
		b.entries++
		p.entry = b.entries
		if b.peers[name] = p; len(b.peers) > maxPeers {
			return problem.New(problem.Resource, "peers_many", "more than %d peers", maxPeers).On(b.dir)
		}
	}
	return nil
}

// List returns all peers, by name.
func (b *Book) List() []Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Peer, 0, len(b.peers))
	for _, p := range b.peers {
		list = append(list, p.clone())
	}
	slices.SortFunc(list, func(x, y Peer) int { return strings.Compare(x.Name, y.Name) })
	return list
}

// Get returns the peer of that name.
func (b *Book) Get(name string) (Peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.peers[name]
	return p.clone(), ok
}

// ByFingerprint returns the peer that has pinned this key.
func (b *Book) ByFingerprint(fingerprint string) (Peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.peers {
		if slices.Contains(p.Fingerprints, fingerprint) {
			return p.clone(), true
		}
	}
	return Peer{}, false
}

// Add stores a peer. A peer of the same name that shares a key with it is refreshed (it
// keeps the time it was added, and what it may do); any other overlap in name, key or agent id is a problem
// of kind Conflict.
func (b *Book) Add(p Peer) error {
	if p.Added.IsZero() {
		p.Added = time.Now()
	}
	p.Added = p.Added.UTC().Truncate(time.Second)
	if err := p.check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.clashLocked(p); err != nil {
		return err
	}
	p.entry = 0
	if old, ok := b.peers[p.Name]; ok {
		p.Added, p.entry = old.Added, old.entry
		p.Grants = Merge(old.Grants, p.Grants)
	} else if len(b.peers) >= maxPeers {
		return problem.New(problem.Resource, "peers_many", "there are %d peers already", maxPeers)
	}
	return b.storeLocked(p.clone())
}

// Remove forgets a peer. Its sessions end at once.
func (b *Book) Remove(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.peers[name]; !ok {
		return unknownPeer(name)
	}
	// The TOML file goes first: without it the other one means nothing.
	for _, suffix := range []string{".toml", ".pem"} {
		if err := durable.Remove(b.path(name, suffix)); err != nil {
			return bookProblem(err, "remove").On(name)
		}
	}
	delete(b.peers, name)
	b.announceLocked()
	return nil
}

// SetEndpoint changes where a peer is dialled; "" means that it is waited for.
func (b *Book) SetEndpoint(name, endpoint string) error {
	return b.update(name, func(p *Peer) { p.Endpoint = endpoint })
}

// noteOthers keeps where else a peer has said that it is dialled.
func (b *Book) noteOthers(name string, others []string) error {
	if p, ok := b.Get(name); ok && slices.Equal(p.Others, others) {
		return nil
	}
	return b.update(name, func(p *Peer) { p.Others = slices.Clone(others) })
}

// Repin trusts another key of a peer, and those of before no longer: sessions with them end
// at once. What the peer may do stays.
func (b *Book) Repin(name, fingerprint string) error {
	return b.update(name, func(p *Peer) {
		if len(p.Fingerprints) == 1 && p.trusts(fingerprint) {
			return
		}
		p.Certificate = p.certificateOf(fingerprint)
		p.Fingerprints, p.entry = []string{fingerprint}, 0
	})
}

// learn keeps the certificate of a peer that was trusted by its fingerprint alone.
func (b *Book) learn(name string, certificate *x509.Certificate) error {
	return b.update(name, func(p *Peer) {
		if p.Certificate == "" && len(p.Fingerprints) == 1 && p.trusts(Fingerprint(certificate)) {
			p.Certificate = string(encodeCertificate(certificate.Raw))
		}
	})
}

// Changed returns a channel that is closed at the next change of the book.
func (b *Book) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// check says whether Add would take the peer, without storing it.
func (b *Book) check(p Peer) error {
	if err := p.check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clashLocked(p)
}

// pinNext pins the key that a peer will use next, beside the one it uses now.
func (b *Book) pinNext(name, now string, next Peer) error {
	return b.update(name, func(p *Peer) {
		keep := p.certificateOf(now)
		p.Fingerprints = []string{now, next.Fingerprints[0]}
		p.Certificate = keep + next.Certificate
	})
}

// settle drops every pin of a peer but this one, when it is the newest: the peer
// has proved that it uses it. Seeing an older one changes nothing.
func (b *Book) settle(name, seen string) (dropped bool, err error) {
	p, ok := b.Get(name)
	if !ok || len(p.Fingerprints) < 2 || p.Fingerprints[len(p.Fingerprints)-1] != seen {
		return false, nil
	}
	return true, b.update(name, func(p *Peer) {
		p.Certificate = p.certificateOf(seen)
		p.Fingerprints = []string{seen}
	})
}

func (b *Book) update(name string, change func(*Peer)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.peers[name]
	if !ok {
		return unknownPeer(name)
	}
	p := old.clone()
	change(&p)
	if err := p.check(); err != nil {
		return err
	}
	delete(b.peers, name) // it may share nothing with what it was
	err := b.clashLocked(p)
	b.peers[name] = old
	if err != nil {
		return err
	}
	return b.storeLocked(p)
}

// clashLocked compares with the peers that are there. Names differ in more than case, for
// the sake of file systems that ignore it.
func (b *Book) clashLocked(p Peer) error {
	for _, other := range b.peers {
		shares := slices.ContainsFunc(p.Fingerprints, func(f string) bool { return slices.Contains(other.Fingerprints, f) })
		switch {
		case strings.EqualFold(other.Name, p.Name) && (!shares || other.Name != p.Name):
			return problem.New(problem.Conflict, "peer_name_taken", "another peer is called %s here", other.Name).On(p.Name).
				WithHint("where it is the same agent made anew, or the other is gone, remove the other first: twinspan peer remove %s, with --force when links depend on it", other.Name)
		case other.Name != p.Name && (shares || other.AgentID == p.AgentID):
			return problem.New(problem.Conflict, "peer_known", "this agent is known already, as %s", other.Name).On(p.Name).
				WithHint("use that name, or remove it first with 'twinspan peer remove %s'", other.Name)
		}
	}
	return nil
}

// storeLocked writes the certificates, then the TOML file, which makes the peer exist.
func (b *Book) storeLocked(p Peer) error {
	text, err := encodePeer(p)
	if err != nil {
		return bookProblem(err, "encode").On(p.Name)
	}
	if err := durable.Write(b.path(p.Name, ".pem"), []byte(p.Certificate), 0o644); err != nil {
		return bookProblem(err, "write").On(p.Name)
	}
	if err := durable.Write(b.path(p.Name, ".toml"), text, 0o644); err != nil {
		return bookProblem(err, "write").On(p.Name)
	}
	if p.entry == 0 {
		b.entries++
		p.entry = b.entries
	}
	b.peers[p.Name] = p
	b.announceLocked()
	return nil
}

func (b *Book) announceLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Book) read(name string) (Peer, error) {
	path := b.path(name, ".toml")
	text, err := readFile(path)
	if err != nil {
		return Peer{}, bookProblem(err, "read")
	}
	p, err := decodePeer(name, text)
	if err != nil {
		return Peer{}, problem.As(err).On(path)
	}
	certificate, err := readFile(b.path(name, ".pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil // the pins are enough to trust; only the date of expiry is unknown
	}
	if err != nil {
		return Peer{}, bookProblem(err, "read")
	}
	p.Certificate = string(certificate)
	if err := p.check(); err != nil {
		return Peer{}, problem.As(fmt.Errorf("%s.pem: %w", name, err)).On(path)
	}
	return p, nil
}

func (b *Book) path(name, suffix string) string { return filepath.Join(b.dir, name+suffix) }

func bookProblem(err error, what string) *problem.Error {
	return problem.Wrap(err, problem.Invalid, "peers_broken", "peers directory: %s", what)
}

func unknownPeer(name string) *problem.Error {
	return problem.New(problem.NotFound, "peer_unknown", "no peer is called %.80q", name).On(name).
		WithHint("see 'twinspan peer list'")
}
