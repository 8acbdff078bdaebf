package metrics

import "github.com/twinspan/twinspan/api"

func instanceFamilies() []family {
	const none = "of an instance that the agent does not run"
	sized := func(name, help, missing string, value func(s api.InstanceSize) int64) family {
		return family{name: name, kind: gauge, help: help, missing: none + "; " + missing, emit: func(s sight, out series) {
			if s.instance != nil && s.instance.Size != nil {
				if n := value(*s.instance.Size); n > 0 {
					out(float64(n))
				}
			}
		}}
	}
	storage := func(name, help string, value func(s api.InstanceStorage) int64) family {
		return family{name: name, kind: gauge, help: help, missing: none + "; until it was measured", emit: func(s sight, out series) {
			if s.instance != nil && s.instance.Storage != nil {
				out(float64(value(*s.instance.Storage)))
			}
		}}
	}
	return []family{
		sized("twinspan_instance_vcores", "vCores that were declared.", "where none were", func(s api.InstanceSize) int64 { return int64(s.VCores) }),
		sized("twinspan_instance_memory_bytes", "Memory that was declared.", "where none was", func(s api.InstanceSize) int64 { return s.MemoryBytes }),
		storage("twinspan_instance_storage_used_bytes", "What data, log and tablespaces take.", func(s api.InstanceStorage) int64 { return s.UsedBytes }),
		storage("twinspan_instance_storage_limit_bytes", "What they may take: the storage declared, or what the file system lets them where that is less.", func(s api.InstanceStorage) int64 { return s.LimitBytes }),
		{name: "twinspan_instance_storage_full_timestamp_seconds", kind: gauge, help: "When the storage is used up, if it grows as it has lately.", missing: none + "; while nothing says that it will be soon",
			emit: func(s sight, out series) {
				if s.instance != nil && s.instance.Storage != nil {
					if v := stamp(s.instance.Storage.FullAt); v != nil {
						out(*v)
					}
				}
			}},
		{name: "twinspan_usage_hour_vcores", kind: gauge, labels: []string{"role", "state"}, help: "vCores of the hour under way, by its role and by what it has been so far: active, passive or unknown.", missing: none + "; where hours are not counted, for no size and no benefit was declared",
			emit: func(s sight, out series) {
				if s.instance != nil && s.instance.Usage != nil {
					out(float64(s.instance.Usage.VCores), s.instance.Usage.Role, s.instance.Usage.State)
				}
			}},
		{name: "twinspan_usage_hour_voids", kind: gauge, help: "Roles and clients that have worked, in the hour under way, on an instance that was declared to be passive.", missing: none + "; where hours are not counted",
			emit: func(s sight, out series) {
				if s.instance != nil && s.instance.Usage != nil {
					out(float64(len(s.instance.Usage.Voids)))
				}
			}},
	}
}
