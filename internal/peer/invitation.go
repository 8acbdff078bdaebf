package peer

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	invitationsDir = "invitations"
	// DefaultInvitation is how long an invitation is valid if nothing else is said.
	DefaultInvitation = time.Hour
	maxInvitationLife = 30 * 24 * time.Hour
	// maxInvitations bounds those that are open at once.
	maxInvitations = 100
	// maxWrong is how many wrong secrets end an invitation.
	maxWrong = 5
	// invitationMemory is how long an invitation that is over is remembered, to say why.
	invitationMemory = 24 * time.Hour
)

// invitation is the content of DIR/invitations/ID.toml. Of the secret only a hash is kept:
// reading the file lets nobody in.
type invitation struct {
	SecretHash string    `toml:"secret_sha256"`
	Created    time.Time `toml:"created"`
	Expires    time.Time `toml:"expires"`
	Wrong      int       `toml:"wrong_attempts"`
	UsedBy     string    `toml:"used_by" comment:"fingerprint of the agent that joined; empty: nobody yet"`
	Grants     []Grant   `toml:"grants,omitempty" comment:"what the agent that joins may ask for"`
	Member     bool      `toml:"member,omitempty" comment:"who joins becomes a member of this instance, and not a peer"`
}

// Invite makes a one-line token with which one other agent can become a peer: it holds
// this agent's addresses, fingerprint and name, a one-time secret and an expiry. A ttl of
// 0 is DefaultInvitation. Who joins by it gets the grants. The agent must listen.
func (e *Endpoint) Invite(ttl time.Duration, grants ...Grant) (string, error) {
	if ttl == 0 {
		ttl = DefaultInvitation
	}
	if ttl < time.Second || ttl > maxInvitationLife {
		return "", problem.New(problem.Invalid, "invitation_ttl", "an invitation cannot be valid for %s", ttl).WithHint("choose up to 30 days")
	}
	if err := checkGrants(grants); err != nil {
		return "", err
	}
	return e.invite(ttl, invitation{Grants: Merge(nil, grants)})
}

// InviteMember makes a token with which one other host can become a member of this agent's instance, with its identity and all that the members share. A ttl
// of 0 is DefaultInvitation. The agent must listen.
func (e *Endpoint) InviteMember(ttl time.Duration) (string, error) {
	if ttl == 0 {
		ttl = DefaultInvitation
	}
	if ttl < time.Second || ttl > maxInvitationLife {
		return "", problem.New(problem.Invalid, "invitation_ttl", "an invitation cannot be valid for %s", ttl).WithHint("choose up to 30 days")
	}
	return e.invite(ttl, invitation{Member: true})
}

func (e *Endpoint) invite(ttl time.Duration, made invitation) (string, error) {
	addresses, err := e.addresses()
	if err != nil {
		return "", err
	}
	fingerprint, err := parseFingerprint(e.Identity.Fingerprint())
	if err != nil {
		return "", err
	}
	now := time.Now().UTC().Truncate(time.Second)
	t := token{Expires: now.Add(ttl), Fingerprint: fingerprint, Name: e.name(), Addresses: addresses}
	rand.Read(t.ID[:])
	rand.Read(t.Secret[:])
	made.SecretHash, made.Created, made.Expires = hashSecret(t.Secret[:]), now, t.Expires
	e.guests.Lock()
	defer e.guests.Unlock()
	if err := e.sweepInvitations(now); err != nil {
		return "", err
	}
	if err := e.writeInvitation(t.ID, made); err != nil {
		return "", err
	}
	e.logger().Info("invitation made", "invitation", hex.EncodeToString(t.ID[:]), "expires", t.Expires)
	return t.encode(), nil
}

// redeem checks a secret and, if it is right, marks the invitation as used by a key, before
// the peer is stored: two who come at the same moment cannot both get in. The same key may
// come again, for it may not have heard the first answer, as long as the invitation has not
// expired and the peer is trusted: one that was removed does not come back by it. An error
// of check leaves the invitation as it is.
func (e *Endpoint) redeem(id [tokenID]byte, secret []byte, member bool, fingerprint string, now time.Time, check func() error, store func(grants []Grant) error) error {
	e.guests.Lock()
	defer e.guests.Unlock()
	refused := func(code, text string) error {
		return problem.New(problem.Unauthorised, code, "%s", text).WithHint("ask for a new one: 'twinspan peer invite'")
	}
	inv, err := e.readInvitation(id)
	if errors.Is(err, fs.ErrNotExist) {
		return refused("invitation_unknown", "the inviting agent knows no such invitation")
	}
	if err != nil {
		return err
	}
	if inv.Wrong >= maxWrong {
		return refused("invitation_revoked", "the invitation was revoked after wrong attempts")
	}
	if subtle.ConstantTimeCompare([]byte(hashSecret(secret)), []byte(inv.SecretHash)) != 1 {
		inv.Wrong++
		if err := e.writeInvitation(id, inv); err != nil {
			return err
		}
		return refused("invitation_unknown", "the inviting agent knows no such invitation")
	}
	if inv.Member != member {
		return problem.New(problem.Invalid, "invitation_kind", "the invitation is for another thing").
			WithHint("a token of 'twinspan member invite' goes to 'twinspan member join', one of 'twinspan peer invite' to 'twinspan peer join'")
	}
	_, trusted := e.Book.ByFingerprint(fingerprint)
	switch {
	case !now.Before(inv.Expires):
		return refused("invitation_expired", "the invitation has expired")
	case inv.UsedBy == fingerprint && trusted:
		return store(nil) // what it was granted then may have been revoked since
	case inv.UsedBy != "":
		return refused("invitation_used", "the invitation was used already")
	}
	if err := check(); err != nil {
		return err
	}
	inv.UsedBy = fingerprint
	if err := e.writeInvitation(id, inv); err != nil {
		return err
	}
	return store(inv.Grants)
}

// Remove ends the trust in a peer: its sessions end at once, and so does what it could come
// back by, the invitation that it has used.
func (e *Endpoint) Remove(name string) error {
	e.guests.Lock()
	defer e.guests.Unlock()
	p, ok := e.Book.Get(name)
	if !ok {
		return unknownPeer(name)
	}
	if err := e.endInvitations(p); err != nil {
		return err
	}
	return e.Book.Remove(name)
}

// Trust agrees to another key of a peer, as its operator has told it: its agent was made anew.
// The key of before is refused from now on.
func (e *Endpoint) Trust(name, fingerprint string) error {
	if _, err := parseFingerprint(fingerprint); err != nil {
		return problem.As(err).On(name)
	}
	if e.Identity.owns(fingerprint) {
		return problem.New(problem.Invalid, "peer_fingerprint", "that is this agent's own key").On(name).WithHint("take the fingerprint that 'twinspan peer export' shows at the other agent")
	}
	e.guests.Lock()
	defer e.guests.Unlock()
	p, ok := e.Book.Get(name)
	if !ok {
		return unknownPeer(name)
	}
	if err := e.endInvitations(p); err != nil {
		return err
	}
	if err := e.Identity.unconfirm(name); err != nil {
		return err
	}
	return e.Book.Repin(name, fingerprint)
}

// endInvitations removes those that a peer has used, by whichever of its keys. Its key may
// be another by now: then redeem refuses the old one, for it is not trusted.
func (e *Endpoint) endInvitations(p Peer) error {
	return e.eachInvitation(func(id [tokenID]byte, inv invitation) error {
		if !p.trusts(inv.UsedBy) {
			return nil
		}
		if err := durable.Remove(e.invitationPath(id)); err != nil {
			return invitationProblem(err, "remove")
		}
		return nil
	})
}

// sweepInvitations removes those that were over long ago and counts the others.
func (e *Endpoint) sweepInvitations(now time.Time) error {
	dir := filepath.Join(e.Identity.Dir(), invitationsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return invitationProblem(err, "make directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return invitationProblem(err, "read directory")
	}
	open := 0
	for _, entry := range entries {
		name, isInvitation := strings.CutSuffix(entry.Name(), ".toml")
		raw, err := hex.DecodeString(name)
		if !isInvitation || err != nil || len(raw) != tokenID {
			continue
		}
		inv, err := e.readInvitation([tokenID]byte(raw))
		if err != nil {
			return err
		}
		if now.Sub(inv.Expires) > invitationMemory {
			if err := durable.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return invitationProblem(err, "remove")
			}
			continue
		}
		if inv.UsedBy == "" && now.Before(inv.Expires) {
			open++
		}
	}
	if open >= maxInvitations {
		return problem.New(problem.Resource, "invitations_many", "%d invitations are open", open).WithHint("wait until some expire")
	}
	return nil
}

// OpenInvitation is one by which somebody can still become a peer.
type OpenInvitation struct {
	ID       string
	Created  time.Time
	Expires  time.Time
	Attempts int // with a wrong secret
	Grants   []Grant
	Member   bool // for a member of the instance, not a peer
}

// Invitations lists those that are open, the oldest first.
func (e *Endpoint) Invitations() ([]OpenInvitation, error) {
	e.guests.Lock()
	defer e.guests.Unlock()
	list := []OpenInvitation{}
	err := e.eachInvitation(func(id [tokenID]byte, inv invitation) error {
		if inv.UsedBy == "" && inv.Wrong < maxWrong && time.Now().Before(inv.Expires) {
			list = append(list, OpenInvitation{hex.EncodeToString(id[:]), inv.Created, inv.Expires, inv.Wrong, inv.Grants, inv.Member})
		}
		return nil
	})
	slices.SortFunc(list, func(a, b OpenInvitation) int { return a.Created.Compare(b.Created) })
	return list, err
}

// Uninvite takes back an invitation that is open: its token lets nobody in any more.
func (e *Endpoint) Uninvite(id string) error {
	e.guests.Lock()
	defer e.guests.Unlock()
	unknown := problem.New(problem.NotFound, "invitation_unknown", "there is no open invitation %q", id).On(id).
		WithHint("twinspan peer invitations lists them; a peer that has joined goes with: twinspan peer remove NAME")
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != tokenID {
		return unknown
	}
	inv, err := e.readInvitation([tokenID]byte(raw))
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && inv.UsedBy != "":
		return unknown
	case err != nil && problem.KindOf(err) != problem.Resource:
		return err
	}
	if err := durable.Remove(e.invitationPath([tokenID]byte(raw))); err != nil {
		return invitationProblem(err, "remove")
	}
	e.logger().Info("invitation taken back", "invitation", id)
	return nil
}

// eachInvitation calls f for those that can be understood; others let nobody in.
func (e *Endpoint) eachInvitation(f func(id [tokenID]byte, inv invitation) error) error {
	entries, err := os.ReadDir(filepath.Join(e.Identity.Dir(), invitationsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return invitationProblem(err, "read directory")
	}
	for _, entry := range entries {
		name, isInvitation := strings.CutSuffix(entry.Name(), ".toml")
		raw, err := hex.DecodeString(name)
		if !isInvitation || err != nil || len(raw) != tokenID {
			continue
		}
		id := [tokenID]byte(raw)
		if inv, err := e.readInvitation(id); err == nil {
			if err := f(id, inv); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Endpoint) invitationPath(id [tokenID]byte) string {
	return filepath.Join(e.Identity.Dir(), invitationsDir, hex.EncodeToString(id[:])+".toml")
}

func (e *Endpoint) readInvitation(id [tokenID]byte) (invitation, error) {
	text, err := readFile(e.invitationPath(id))
	if err != nil {
		return invitation{}, invitationProblem(err, "read")
	}
	var inv invitation
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&inv); err != nil {
		return invitation{}, invitationProblem(err, "understand").On(e.invitationPath(id))
	}
	return inv, nil
}

func (e *Endpoint) writeInvitation(id [tokenID]byte, inv invitation) error {
	text, err := toml.Marshal(inv)
	if err != nil {
		return invitationProblem(err, "encode")
	}
	if err := durable.Write(e.invitationPath(id), text, 0o600); err != nil {
		return invitationProblem(err, "write")
	}
	return nil
}

func hashSecret(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}

func invitationProblem(err error, what string) *problem.Error {
	return problem.Wrap(err, problem.Internal, "invitation_broken", "invitation: %s", what)
}

// addresses returns where others can dial this agent.
func (e *Endpoint) addresses() ([]string, error) {
	if e.Advertise != "" {
		return []string{e.Advertise}, checkEndpoint(e.Advertise)
	}
	address, ok := e.Addr().(*net.TCPAddr)
	if !ok {
		return nil, problem.New(problem.Invalid, "endpoint_silent", "this agent has no address that others could dial").
			WithHint("give it one with 'twinspan init --endpoint HOST:PORT', or invite from the other agent")
	}
	if !address.IP.IsUnspecified() {
		return []string{address.String()}, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, problem.Wrap(err, problem.Internal, "internal", "list addresses")
	}
	var list []string
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() && len(list) < maxAddresses-1 {
			list = append(list, (&net.TCPAddr{IP: n.IP, Port: address.Port}).String())
		}
	}
	// Last, for two agents on one host.
	return append(list, (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: address.Port}).String()), nil
}
