package backup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// Bounds of the retention, in days (those of the original), and of how many repositories there are.
const (
	ShortestRetention = 1
	DefaultRetention  = 7
	LongestRetention  = 35
	MostRepositories  = 4
)

// Repository is one that is named by the policy.
type Repository struct {
	Number int    `json:"number"` // names it as long as it is in the policy
	Place  string `json:"place"`  // what ParsePlace reads
}

// Policy says what is kept, and where.
type Policy struct {
	RetentionDays int          `json:"retentionDays"`
	Repositories  []Repository `json:"repositories"` // by number; none where nobody has named a place yet
}

// Retention is how far back every moment can be restored.
func (p Policy) Retention() time.Duration { return time.Duration(p.RetentionDays) * 24 * time.Hour }

// Place is that of the repository with a number, "" where there is none.
func (p Policy) Place(number int) string {
	for _, r := range p.Repositories {
		if r.Number == number {
			return r.Place
		}
	}
	return ""
}

// With returns the policy with one more repository, of the lowest number that is free, and the number. One that it has stays.
func (p Policy) With(place string) (Policy, int) {
	p.Repositories = slices.Clone(p.Repositories)
	number := 1
	for _, r := range p.Repositories {
		if r.Place == place {
			return p, r.Number
		}
	}
	for p.Place(number) != "" {
		number++
	}
	p.Repositories = append(p.Repositories, Repository{number, place})
	slices.SortFunc(p.Repositories, func(a, b Repository) int { return a.Number - b.Number })
	return p, number
}

// Without returns the policy without a repository. It fails where it has none such, or no other.
func (p Policy) Without(place string) (Policy, error) {
	left := slices.DeleteFunc(slices.Clone(p.Repositories), func(r Repository) bool { return r.Place == place })
	switch {
	case len(left) == len(p.Repositories):
		return p, problem.New(problem.NotFound, "backup_repository_unknown", "the backups have no repository %q", place).On(place).
			WithHint("twinspan backup policy shows the repositories")
	case len(left) == 0:
		return p, problem.New(problem.Conflict, "backup_policy_invalid", "%q is the only repository of the backups", place).On(place).
			WithHint("add another one first, or name the one that replaces it with --repository")
	}
	p.Repositories = left
	return p, nil
}

// Validate refuses what cannot be kept to.
func (p Policy) Validate() error {
	if p.RetentionDays < ShortestRetention || p.RetentionDays > LongestRetention {
		return problem.New(problem.Invalid, "backup_policy_invalid", "backups cannot be kept for %d days", p.RetentionDays).
			WithHint("name %d to %d days", ShortestRetention, LongestRetention)
	}
	if n := len(p.Repositories); n == 0 || n > MostRepositories {
		return problem.New(problem.Invalid, "backup_policy_invalid", "backups cannot be kept in %d repositories", n).
			WithHint("name 1 to %d", MostRepositories)
	}
	for i, r := range p.Repositories {
		place, err := ParsePlace(r.Place)
		if err != nil {
			return err
		}
		if r.Number < 1 || slices.ContainsFunc(p.Repositories[:i], func(o Repository) bool {
			other, err := ParsePlace(o.Place)
			return err == nil && (o.Number == r.Number || other.Kind == place.Kind && other.Bucket == place.Bucket &&
				other.Path == place.Path && other.Options["endpoint"] == place.Options["endpoint"] && other.Options["account"] == place.Options["account"])
		}) {
			return problem.New(problem.Invalid, "backup_policy_invalid", "%q is named twice", r.Place).WithHint("name each repository once")
		}
	}
	return nil
}

// LoadPolicy reads a policy; where there is no file it is the default, which keeps backups in the directory named, with "" nowhere.
func LoadPolicy(file, repository string) (Policy, error) {
	p := Policy{RetentionDays: DefaultRetention}
	if repository != "" {
		p.Repositories = []Repository{{1, repository}}
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	var stored struct {
		Policy
		Repository string `json:"repository"` // before there could be several
	}
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if p = stored.Policy; len(p.Repositories) == 0 && stored.Repository != "" {
		p.Repositories = []Repository{{1, stored.Repository}}
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
