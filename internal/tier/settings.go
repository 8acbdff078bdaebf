package tier

import (
	"strconv"
)

// Machine is what an instance runs on. What is 0 is not known.
type Machine struct {
	Memory int64 // bytes
	CPUs   int
}

// Exceeds lists what a size declares and its machine does not have: "vcores", "memory".
func (s Size) Exceeds(m Machine) []string {
	var list []string
	if m.CPUs > 0 && s.VCores > m.CPUs {
		list = append(list, "vcores")
	}
	if m.Memory > 0 && s.Memory > m.Memory {
		list = append(list, "memory")
	}
	return list
}

const (
	kB = 1 << 10
	mB = 1 << 20
	gB = 1 << 30
)

// Settings are the settings of a server of this size on a machine; none where no processors
// were declared. What the machine does not have is not given away. Values carry their units, so that
// a person can read them.
//
// Memory is split as the manual's chapter "Resource Consumption" advises: a quarter for
// shared_buffers; three quarters are what the planner may believe to be cached, by the server or
// the system. The rest of a quarter is what sessions sort and hash in, shared among half of the
// connections, for a session may take work_mem several times and never all sort at once.
func (s Size) Settings(m Machine) map[string]string {
	settings := map[string]string{}
	if s.Storage > 0 {
		// The log between two checkpoints may take a twentieth of the storage: fewer checkpoints write
		// fewer whole pages; more log would be a long recovery. A segment has 16 MB, and five are the least.
		most := clamp(s.Storage/20, 256*mB, 32*gB)
		settings["max_wal_size"] = megabytes(most)
		settings["min_wal_size"] = megabytes(clamp(most/4, 80*mB, 4*gB))
	}
	if !s.Sized() {
		return settings
	}
	memory, cores := s.Memory, s.VCores
	if m.Memory > 0 {
		memory = min(memory, m.Memory)
	}
	if m.CPUs > 0 {
		cores = min(cores, m.CPUs)
	}
	buffers := clamp(memory/4, 128*mB, 64*gB)
	// A connection costs some megabytes of its own, so memory says how many there may be. 300 are what a hundred links
	// and their applications need in any case; beyond 2000 a pooler serves better.
	connections := clamp(memory/(20*mB), 300, 2000)
	settings["max_connections"] = strconv.FormatInt(connections, 10)
	settings["shared_buffers"] = megabytes(buffers)
	settings["effective_cache_size"] = megabytes(memory / 4 * 3)
	settings["work_mem"] = kilobytes(clamp((memory-buffers)/2/connections, 4*mB, 1*gB))
	// One session at a time builds an index as a rule, but three autovacuum workers work at once: they have a smaller share.
	settings["maintenance_work_mem"] = megabytes(clamp(memory/16, 64*mB, 2*gB))
	settings["autovacuum_work_mem"] = megabytes(clamp(memory/64, 64*mB, 1*gB))
	// As many parallel workers as processors; one query has half of them at most, and no more than four, so that
	// it does not take the instance from the others. With one processor nothing runs in parallel.
	parallel := strconv.Itoa(min(cores/2, 4))
	settings["max_parallel_workers"] = strconv.Itoa(cores)
	settings["max_parallel_workers_per_gather"] = parallel
	settings["max_parallel_maintenance_workers"] = parallel
	// Eight more for what extensions and subscriptions run.
	settings["max_worker_processes"] = strconv.Itoa(cores + 8)
	return settings
}

func clamp(n, least, most int64) int64 { return min(max(n, least), most) }

func megabytes(n int64) string { return strconv.FormatInt(n/mB, 10) + "MB" }
func kilobytes(n int64) string { return strconv.FormatInt(n/kB, 10) + "kB" }
