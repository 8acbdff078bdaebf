// Package tier is the size of a managed instance: its tier, its processors, memory and storage,
// and the settings of the server that follow from them. It knows no server.
package tier

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// The tiers. BusinessCritical is that of instances of several members (package member), which have no size: Check refuses it.
const (
	GeneralPurpose   = "general-purpose"
	BusinessCritical = "business-critical"
)

// The benefits.
const (
	NoBenefit = "none"
	// PassiveDR declares that the instance is there for a disaster alone: nobody works on it.
	PassiveDR = "passive-dr"
)

// The bounds of a size. The smallest is what a server with room for a hundred links runs in.
const (
	MostVCores    = 1024
	LeastMemory   = 1 << 30
	MostMemory    = 64 << 40
	LeastStorage  = 256 << 20
	MostStorage   = 1 << 50
	memoryOfVCore = 5222 << 20 // 5.1 GB, as the original's general purpose tier has it
)

// Size is what an operator has declared of a managed instance. What is 0 was not declared.
type Size struct {
	Tier    string `json:"tier"`
	VCores  int    `json:"vcores,omitempty"`
	Memory  int64  `json:"memoryBytes,omitempty"`
	Storage int64  `json:"storageBytes,omitempty"`
	Benefit string `json:"benefit"`
}

// Default is the size of an instance of which nothing was declared: it shares its machine.
func Default() Size { return Size{Tier: GeneralPurpose, Benefit: NoBenefit} }

// Sized says whether processors and memory were declared.
func (s Size) Sized() bool { return s.VCores > 0 }

// Complete adds what follows from what was declared: the tier, the benefit, and memory from the
// number of processors.
func (s Size) Complete() Size {
	if s.Tier == "" {
		s.Tier = GeneralPurpose
	}
	if s.Benefit == "" {
		s.Benefit = NoBenefit
	}
	if s.VCores > 0 && s.Memory == 0 {
		s.Memory = int64(s.VCores) * memoryOfVCore
	}
	return s
}

// Check refuses what cannot be the size of an instance, with the codes tier_unknown,
// tier_unavailable, benefit_unknown and instance_size_invalid. The size has to be complete.
func (s Size) Check() error {
	bad := func(subject, text, hint string) error {
		return problem.New(problem.Invalid, "instance_size_invalid", "%s", text).On(subject).WithHint("%s", hint)
	}
	switch {
	case s.Tier == BusinessCritical:
		return problem.New(problem.Incompatible, "tier_unavailable", "an instance of one server does not become one of the tier %s", s.Tier).On(s.Tier).
			WithHint("make another one with twinspan init --managed --tier %s, and move the databases there with links", BusinessCritical)
	case s.Tier != GeneralPurpose:
		return problem.New(problem.Invalid, "tier_unknown", "there is no tier %q", s.Tier).On(s.Tier).WithHint("use %s", GeneralPurpose)
	case s.Benefit != NoBenefit && s.Benefit != PassiveDR:
		return problem.New(problem.Invalid, "benefit_unknown", "there is no benefit %q", s.Benefit).On(s.Benefit).WithHint("use %s or %s", NoBenefit, PassiveDR)
	case s.VCores < 0 || s.VCores > MostVCores:
		return bad("vcores", "an instance has 1 to 1024 vCores", "give --vcores a whole number")
	case s.VCores == 0 && s.Memory != 0:
		return bad("memory", "memory is declared together with vCores", "give --vcores, too")
	case s.Memory != 0 && (s.Memory < LeastMemory || s.Memory > MostMemory):
		return bad("memory", "an instance has 1 GB to 64 TB of memory", "write it as 8GB")
	case s.Storage != 0 && (s.Storage < LeastStorage || s.Storage > MostStorage):
		return bad("storage", "an instance has 256 MB to 1 PB of storage", "write it as 100GB")
	}
	return nil
}

// Load reads a size; Default where the file is missing. Its error has the code instance_size_broken.
func Load(file string) (Size, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Default(), nil
	}
	s := Default()
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil {
		s = s.Complete()
		err = s.Check()
	}
	if err != nil {
		return Size{}, problem.Wrap(err, problem.Invalid, "instance_size_broken", "the size of the instance cannot be read").On(file).
			WithHint("mend the file, or remove it to have an instance without a size, and set the size anew")
	}
	return s, nil
}

// Save puts a size in place, whole and durably. Its error has the code dir_not_writable.
func (s Size) Save(file string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = durable.Write(file, append(text, '\n'), 0o600)
	}
	if err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "keep the size of the instance").On(file)
	}
	return nil
}
