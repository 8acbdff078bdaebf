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

// recall reads what is known of the backups out of a file. One that is not there, or is broken, has nothing.
func recall[T any](path, what string) (known T, found bool, err error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return known, false, nil
	case err != nil:
		return known, false, problem.Wrap(err, problem.Internal, "internal", "read the last %s of the backups", what)
	}
	var read T
	if json.Unmarshal(text, &read) != nil {
		return known, false, nil
	}
	return read, true, nil
}

// keep writes into a file what recall reads.
func (s *store) keep(path, what string, known any) error {
	text, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "write the %s of the backups", what)
	}
	return s.k.Put(path, append(text, '\n'))
}

func (s *store) verificationFile() string { return filepath.Join(s.dir, "verified.json") }

// openVerification reads the last verification. A file that is broken counts as none: the next one writes it anew.
func (s *store) openVerification() error {
	v, found, err := recall[verification](s.verificationFile(), "verification")
	if found {
		s.verified = v
		s.raise("verify", damage(v.Report))
	}
	return err
}

// found notes a verification that was done, and raises what it found, or ends the problem of the one before.
func (s *store) found(v verification) error {
	s.k.mu.Lock()
	s.verified = v
	s.k.mu.Unlock()
	s.raise("verify", damage(v.Report))
	return s.keep(s.verificationFile(), "verification", v)
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
