package tier

import (
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

func TestSettingsOfASize(t *testing.T) {
	for _, c := range []struct {
		size Size
		on   Machine
		want map[string]string
	}{
		{Default(), Machine{}, map[string]string{}},
		{Size{Storage: 100 * gB}, Machine{}, map[string]string{"max_wal_size": "5120MB", "min_wal_size": "1280MB"}},
		{Size{VCores: 2, Memory: 8 * gB}, Machine{}, map[string]string{
			"max_connections": "409", "shared_buffers": "2048MB", "effective_cache_size": "6144MB", "work_mem": "7691kB", "maintenance_work_mem": "512MB",
			"autovacuum_work_mem": "128MB", "max_parallel_workers": "2", "max_parallel_workers_per_gather": "1", "max_parallel_maintenance_workers": "1", "max_worker_processes": "10"}},
		// A machine that has less gives less.
		{Size{VCores: 64, Memory: 512 * gB}, Machine{Memory: 8 * gB, CPUs: 2}, map[string]string{
			"max_connections": "409", "shared_buffers": "2048MB", "effective_cache_size": "6144MB", "work_mem": "7691kB", "maintenance_work_mem": "512MB",
			"autovacuum_work_mem": "128MB", "max_parallel_workers": "2", "max_parallel_workers_per_gather": "1", "max_parallel_maintenance_workers": "1", "max_worker_processes": "10"}},
		{Size{VCores: 1, Memory: gB, Storage: LeastStorage}, Machine{}, map[string]string{
			"max_connections": "300", "shared_buffers": "256MB", "effective_cache_size": "768MB", "work_mem": "4096kB", "maintenance_work_mem": "64MB",
			"autovacuum_work_mem": "64MB", "max_parallel_workers": "1", "max_parallel_workers_per_gather": "0", "max_parallel_maintenance_workers": "0", "max_worker_processes": "9",
			"max_wal_size": "256MB", "min_wal_size": "80MB"}},
	} {
		if got := c.size.Settings(c.on); !maps.Equal(got, c.want) {
			t.Errorf("%+v on %+v:\n%v, want\n%v", c.size, c.on, got, c.want)
		}
	}
}

// TestSettingsFitTheirMemory: whatever the size, what the server takes at once and what half of its sessions
// sort in stay within the memory.
func TestSettingsFitTheirMemory(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for range 2000 {
		s := Size{VCores: 1 + r.Intn(MostVCores), Memory: LeastMemory + r.Int63n(2<<40), Storage: LeastStorage + r.Int63n(64<<40)}.Complete()
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		set := s.Settings(Machine{})
		bytes := func(name string) int64 {
			text, unit := set[name], int64(mB)
			if strings.HasSuffix(text, "kB") {
				unit = kB
			}
			n, err := strconv.ParseInt(text[:len(text)-2], 10, 64)
			if err != nil {
				t.Fatalf("%s is %q", name, text)
			}
			return n * unit
		}
		connections, _ := strconv.ParseInt(set["max_connections"], 10, 64)
		if sum := bytes("shared_buffers") + connections/2*bytes("work_mem"); sum > s.Memory && bytes("work_mem") > 4*mB {
			t.Errorf("%+v: %d bytes of %d: %v", s, sum, s.Memory, set)
		}
		if bytes("min_wal_size") > bytes("max_wal_size") || bytes("min_wal_size") < 80*mB {
			t.Errorf("%+v: %v", s, set)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for code, s := range map[string]Size{
		"tier_unavailable":      {Tier: BusinessCritical},
		"tier_unknown":          {Tier: "gold"},
		"benefit_unknown":       {Benefit: "free"},
		"instance_size_invalid": {Memory: 8 * gB},
	} {
		if err := s.Complete().Check(); problem.CodeOf(err) != code || problem.As(err).Hint == "" {
			t.Errorf("%+v: %v, want %s", s, err, code)
		}
	}
	for _, s := range []Size{{VCores: -1}, {VCores: MostVCores + 1}, {VCores: 1, Memory: gB - 1}, {VCores: 1, Memory: -1}, {Storage: 1}, {Storage: -1}} {
		if err := s.Complete().Check(); problem.CodeOf(err) != "instance_size_invalid" {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if got := (Size{VCores: 2}).Complete(); got.Memory != 10444*mB || got.Check() != nil {
		t.Errorf("%+v", got)
	}
}

func TestSizeIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "instance.json")
	if s, err := Load(file); err != nil || s != Default() {
		t.Fatalf("%+v, %v", s, err)
	}
	want := Size{Tier: GeneralPurpose, VCores: 2, Memory: 8 * gB, Storage: 100 * gB, Benefit: PassiveDR}
	if err := want.Save(file); err != nil {
		t.Fatal(err)
	}
	if s, err := Load(file); err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	for _, text := range []string{"", "{", `{"vcores": "two"}`, `{"tier": "gold"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file); problem.CodeOf(err) != "instance_size_broken" || problem.As(err).Hint == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
