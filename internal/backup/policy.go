package backup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// Bounds of the retention, in days (those of the original).
const (
	ShortestRetention = 1
	DefaultRetention  = 7
	LongestRetention  = 35
)

// Policy says what is kept, and where.
type Policy struct {
	RetentionDays int    `json:"retentionDays"`
	Repository    string `json:"repository"` // an absolute directory
}

// Retention is how far back every moment can be restored.
func (p Policy) Retention() time.Duration { return time.Duration(p.RetentionDays) * 24 * time.Hour }

// Validate refuses what cannot be kept to.
func (p Policy) Validate() error {
	if p.RetentionDays < ShortestRetention || p.RetentionDays > LongestRetention {
		return problem.New(problem.Invalid, "backup_policy_invalid", "backups cannot be kept for %d days", p.RetentionDays).
			WithHint("name %d to %d days", ShortestRetention, LongestRetention)
	}
	if !filepath.IsAbs(p.Repository) || strings.ContainsAny(p.Repository, "\n\r\x00") || filepath.Clean(p.Repository) != p.Repository ||
		strings.TrimSpace(p.Repository) != p.Repository || p.Repository == "/" {
		return problem.New(problem.Invalid, "backup_policy_invalid", "%q cannot hold backups", p.Repository).
			WithHint("name a directory with its full path")
	}
	return nil
}

// LoadPolicy reads a policy; where there is no file it is the default, which keeps backups in the directory named.
func LoadPolicy(file, repository string) (Policy, error) {
	p := Policy{RetentionDays: DefaultRetention, Repository: repository}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err == nil {
		err = p.Validate()
	}
	if err != nil {
		return p, problem.Wrap(err, problem.Invalid, "backup_policy_broken", "the policy of backups cannot be read").On(file).
			WithHint("mend the file, or remove it to have the default")
	}
	return p, nil
}

func (k *Keeper) policyFile() string { return filepath.Join(k.Dir, "policy.json") }

// policyText renders a policy as its file has it.
func policyText(p Policy) ([]byte, error) {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, problem.Wrap(err, problem.Internal, "internal", "write the policy of backups")
	}
	return append(text, '\n'), nil
}
