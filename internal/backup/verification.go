package backup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// verification is when the repository was last read as a whole, and what was found. It lies in a file: what is damaged
// stays so when the agent starts anew, and an agent that is started every day has to verify, too.
type verification struct {
	At     time.Time `json:"at"`
	Report Report    `json:"report"`
}

func (k *Keeper) verificationFile() string { return filepath.Join(k.Dir, "verified.json") }

// openVerification reads the last verification. A file that is broken counts as none: the next one writes it anew.
func (k *Keeper) openVerification() error {
	text, err := os.ReadFile(k.verificationFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "read the last verification of the backups")
	}
	var v verification
	if json.Unmarshal(text, &v) == nil {
		k.verified = v
		k.raise("verify", damage(v.Report))
	}
	return nil
}

// found notes a verification that was done, and raises what it found, or ends the problem of the one before.
func (k *Keeper) found(v verification) error {
	k.mu.Lock()
	k.verified = v
	k.mu.Unlock()
	k.raise("verify", damage(v.Report))
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "write the verification of the backups")
	}
	return k.Put(k.verificationFile(), append(text, '\n'))
}

// damage is the problem of what a verification found, nil for nothing.
func damage(r Report) error {
	if len(r.Findings) == 0 {
		return nil
	}
	first := r.Findings[0]
	subject, text := first.Set, first.Text
	if subject != "" {
		text = "backup " + subject + ": " + text
	}
	return problem.New(problem.Diverged, "backup_damaged", "the backups are damaged in %d places, the first: %s", len(r.Findings), text).On(subject).
		WithHint("make a full backup now (twinspan backup now --type full), and look at the disk of the repository; twinspan backup verify again ends this")
}
