package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// rotationRecord is the content of rotation.toml.
type rotationRecord struct {
	Confirmed []string `toml:"confirmed" comment:"peers that have pinned the next key"`
}

// beginRotation makes the next key and certificate. The current ones stay in use.
func (id *Identity) beginRotation(now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next != nil {
		return problem.New(problem.Conflict, "rotation_pending", "a rotation is not complete: not every peer has confirmed the next key").
			WithHint("wait until every peer was connected once, or remove peers that will not come back")
	}
	c, err := newCredential(id.name, id.agentID, now)
	if err != nil {
		return identityProblem(err, id.dir, "make key")
	}
	if err := durable.Remove(id.path(rotationFile)); err != nil {
		return identityProblem(err, id.dir, "remove old rotation")
	}
	if err := id.writeCredential(c, nextKeyFile, nextCertificateFile); err != nil {
		return err
	}
	id.next, id.confirmed = &c, map[string]bool{}
	return nil
}

// upcoming returns the next credential, if a rotation is under way.
func (id *Identity) upcoming() (credential, bool) {
	id.mu.RLock()
	defer id.mu.RUnlock()
	if id.next == nil {
		return credential{}, false
	}
	return *id.next, true
}

func (id *Identity) hasConfirmed(peer string) bool {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.confirmed[peer]
}

// confirm records that a peer has pinned the next key.
func (id *Identity) confirm(peer string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next == nil || id.confirmed[peer] {
		return nil
	}
	confirmed := maps.Clone(id.confirmed)
	confirmed[peer] = true
	return id.writeConfirmedLocked(confirmed)
}

// unconfirm takes a confirmation back: the peer was paired anew and may have
// forgotten the next key.
func (id *Identity) unconfirm(peer string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next == nil || !id.confirmed[peer] {
		return nil
	}
	confirmed := maps.Clone(id.confirmed)
	delete(confirmed, peer)
	return id.writeConfirmedLocked(confirmed)
}

func (id *Identity) writeConfirmedLocked(confirmed map[string]bool) error {
	names := slices.Sorted(maps.Keys(confirmed))
	text, err := toml.Marshal(rotationRecord{Confirmed: names})
	if err != nil {
		return identityProblem(err, id.dir, "encode rotation")
	}
	if err := durable.Write(id.path(rotationFile), text, 0o644); err != nil {
		return identityProblem(err, id.dir, "write rotation")
	}
	id.confirmed = confirmed
	return nil
}

// completeRotation puts the next credential in the place of the current one. The
// rename of the key decides; what follows is repeated by LoadIdentity if it is cut off.
func (id *Identity) completeRotation() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next == nil {
		return nil
	}
	if err := os.Rename(id.path(nextKeyFile), id.path(keyFile)); err != nil {
		return identityProblem(err, id.dir, "replace key")
	}
	id.current, id.next, id.confirmed = *id.next, nil, nil
	return id.settleFiles()
}

// settleFiles moves the next certificate to where its key already is.
func (id *Identity) settleFiles() error {
	err := os.Rename(id.path(nextCertificateFile), id.path(certificateFile))
	if err == nil {
		err = durable.Remove(id.path(rotationFile))
	}
	if err == nil {
		err = durable.SyncDir(id.path("."))
	}
	if err != nil {
		return identityProblem(err, id.dir, "replace certificate")
	}
	return nil
}

func (id *Identity) readConfirmed() (map[string]bool, error) {
	confirmed := map[string]bool{}
	text, err := readFile(id.path(rotationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return confirmed, nil
	}
	if err != nil {
		return nil, identityProblem(err, id.dir, "read rotation")
	}
	var record rotationRecord
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&record); err != nil {
		return nil, identityProblem(fmt.Errorf("%s: %w", rotationFile, err), id.dir, "read rotation")
	}
	for _, name := range record.Confirmed {
		confirmed[name] = true
	}
	return confirmed, nil
}
