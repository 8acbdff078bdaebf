package agent

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
	"github.com/twinspan/twinspan/internal/tier"
	"github.com/twinspan/twinspan/internal/usage"
)

const (
	// lookAtInstance is between two looks at what the instance takes and how its settings stand. A look that takes long comes
	// less often: at most a fiftieth of the time is spent with it.
	lookAtInstance = 30 * time.Second
	lookShare      = 50
	// settleTime bounds how long a server may take to read its settings.
	settleTime = 20 * time.Second
)

// sizing is the size of the instance, and what is seen of it. Its zero value is one of an instance that nobody has looked at.
type sizing struct {
	changing sync.Mutex // held while the size is changed

	mu         sync.Mutex
	size       tier.Size
	unenforced *problem.Error // why the kernel enforces nothing
	settings   *pg.Applied    // nil while the server has not told
	storage    *api.InstanceStorage
	trouble    *problem.Error // why the storage is not known
	encryption *api.EncryptionAtRest
	installed  instance.Release // of the programs beside the server; unknown while it cannot be told
	programs   *problem.Error   // why it cannot
	running    instance.Release // what the server runs; unknown while it has not told
	asking     instance.Installed
	history    tier.History
	measuring  sync.Mutex // held while the storage is measured
}

// now returns the size.
func (s *sizing) now() tier.Size {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// machine is what the instance runs on.
func machine() tier.Machine { return tier.Machine{Memory: instance.Memory(), CPUs: runtime.NumCPU()} }

// openSize reads the size of a managed instance, before its server is made.
func (a *Agent) openSize() error {
	size, err := tier.Load(a.Dir.Size())
	if err != nil {
		return err
	}
	a.sizing.size = size
	a.managed.Settings = a.serverSettings(size)
	a.confine(size)
	return nil
}

// serverSettings are those of a managed server of a size, over its defaults.
func (a *Agent) serverSettings(size tier.Size) map[string]string {
	settings := size.Settings(machine())
	if size.Benefit == tier.PassiveDR {
		maps.Copy(settings, usage.Settings())
	}
	if !a.config.Postgres.NoBackups {
		maps.Copy(settings, pgbackrest.ArchiveSettings(a.Dir.Backup()))
	}
	return settings
}

// confine has the kernel hold the server to its size, where it can be.
func (a *Agent) confine(size tier.Size) {
	err := a.managed.Confine(instance.Limits{CPUs: size.VCores, Memory: size.Memory})
	a.sizing.mu.Lock()
	a.sizing.unenforced = problem.As(err)
	a.sizing.mu.Unlock()
	if err != nil {
		a.Log.Info("the size of the instance is enforced by settings alone", telemetry.Failure(err))
	}
}

// watchInstance looks at the instance until ctx ends.
func (a *Agent) watchInstance(ctx context.Context) {
	for {
		began := time.Now()
		a.lookAtInstance(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(lookAtInstance, lookShare*time.Since(began))):
		}
	}
}

func (a *Agent) lookAtInstance(ctx context.Context) {
	if a.cluster != nil { // it has no size, and its server may be another member's
		return
	}
	ctx, stop := context.WithTimeout(ctx, settleTime)
	defer stop()
	if a.managed == nil {
		if _, err := a.running(ctx); err != nil && ctx.Err() == nil {
			a.Log.Debug("the server does not tell which release it runs", telemetry.Failure(err))
		}
		if encryption, known, err := assess.EncryptionOf(ctx, a.server); err == nil {
			a.sizing.mu.Lock()
			a.sizing.encryption = nil
			if known {
				a.sizing.encryption = &api.EncryptionAtRest{Kind: encryption.Kind, Detail: encryption.Detail}
			}
			a.sizing.mu.Unlock()
		}
		return
	}
	encryption := instance.EncryptionAt(a.managed.DataDir())
	a.sizing.mu.Lock()
	a.sizing.encryption = &api.EncryptionAtRest{Kind: encryption.Kind, Detail: encryption.Detail}
	a.sizing.mu.Unlock()
	if _, err := a.measure(); err != nil {
		a.Log.Warn("the storage of the instance is not known", telemetry.Failure(err))
	}
	_, _, _ = a.lookAtPrograms(ctx) // which notes what it cannot find out
	if a.managed.WaitReady(ctx) == nil {
		if err := a.askSettings(ctx, time.Time{}); err != nil && ctx.Err() == nil {
			a.Log.Debug("settings of the instance are not known", telemetry.Failure(err))
		}
	}
}

// askSettings asks the server how the settings of its size stand, once it has read its files later than after.
func (a *Agent) askSettings(ctx context.Context, after time.Time) error {
	names := slices.Sorted(maps.Keys(a.sizing.now().Settings(machine())))
	applied, err := a.server.Settings(ctx, instance.ConfigFile, names, after)
	a.sizing.mu.Lock()
	defer a.sizing.mu.Unlock()
	a.sizing.settings = nil
	if err == nil {
		a.sizing.settings = &applied
	}
	return err
}

// measure measures the storage of a managed instance, and keeps what it finds.
func (a *Agent) measure() (api.InstanceStorage, error) {
	s := &a.sizing
	s.measuring.Lock()
	defer s.measuring.Unlock()
	space, err := a.managed.Space()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble = problem.As(err); err != nil {
		s.storage = nil
		return api.InstanceStorage{}, err
	}
	out := storageOf(s.size, space)
	s.history.Add(now, space.Used)
	f := s.history.Forecast(now, out.FreeBytes)
	out.MeasuredAt = now.UTC()
	if out.Window = f.Window.Seconds(); f.Window > 0 {
		out.Rate = &f.Rate
	}
	if !f.Full.IsZero() {
		full := f.Full.UTC()
		out.FullAt = &full
	}
	s.storage = &out
	return out, nil
}

// storageOf is what an instance of a size may take, and has left. The file system may have less than the size says.
func storageOf(size tier.Size, space instance.Space) api.InstanceStorage {
	out := api.InstanceStorage{UsedBytes: space.Used, FileSystem: space.Free, LimitBytes: space.Used + space.Free}
	if size.Storage > 0 {
		out.LimitBytes = min(out.LimitBytes, size.Storage)
	}
	out.FreeBytes = max(0, out.LimitBytes-space.Used)
	return out
}

// storage is what is left of the storage of a managed instance that was given one; nil where nothing but its disk bounds it, and where it
// cannot be measured, which is a problem of its own.
func (a *Agent) storage() *assess.Storage {
	if a.managed == nil || a.cluster != nil || a.sizing.now().Storage == 0 {
		return nil
	}
	s, err := a.measure()
	if err != nil {
		return nil
	}
	return &assess.Storage{Limit: s.LimitBytes, Free: s.FreeBytes}
}

// Instance implements httpapi.Agent.
func (a *Agent) Instance(ctx context.Context) (api.Instance, error) {
	info, err := a.Info(ctx)
	if err != nil {
		return api.Instance{}, err
	}
	out := api.Instance{Agent: info.Name, Postgres: info.Postgres, Roles: a.roleCount(), Problems: info.Problems}
	s := &a.sizing
	s.mu.Lock()
	out.Encryption = s.encryption
	if a.cluster != nil {
		out.Size = &api.InstanceSize{Tier: tier.BusinessCritical, Benefit: tier.NoBenefit}
	} else if a.managed != nil {
		out.Installed = s.installed.String()
		size := describeSize(s.size)
		out.Size, out.Storage = &size, s.storage
		out.Enforcement = &api.Enforcement{Settings: len(s.size.Settings(machine())) > 0, Limits: a.managed.Confined()}
		if s.size.Sized() && s.unenforced != nil {
			out.Enforcement.Why = s.unenforced.Error()
		}
		if s.settings != nil {
			out.Enforcement.Known, out.Enforcement.Pending, out.Enforcement.Overridden = true, s.settings.Pending, s.settings.Overridden
		}
	}
	s.mu.Unlock()
	out.Usage = a.usageNow()
	if k := a.keeping(); k != nil {
		b := describeBackups(k.State())
		out.Backups = &b
	}
	return out, nil
}

func describeSize(s tier.Size) api.InstanceSize {
	return api.InstanceSize{Tier: s.Tier, VCores: s.VCores, MemoryBytes: s.Memory, StorageBytes: s.Storage, Benefit: s.Benefit}
}

// roleCount counts the links by what this side is in them.
func (a *Agent) roleCount() api.InstanceRoles {
	out := api.InstanceRoles{Known: a.links.readyHere() == nil}
	for _, l := range a.links.all() {
		if l.View().Role == api.Primary {
			out.Primary++
		} else {
			out.Secondary++
		}
	}
	return out
}

func hasMembers() error {
	return problem.New(problem.Incompatible, "instance_has_members", "an instance of several members has no size, no benefit and no usage").
		WithHint("its servers share their machines; twinspan member durability changes when its commits return")
}

func notManaged() error {
	return problem.New(problem.Incompatible, "instance_not_managed", "the agent does not run this instance: it has no tier, no size and no usage here").
		WithHint("whoever runs the server sizes it; twinspan init --managed makes an instance with a size")
}

// SetInstance implements httpapi.Agent.
func (a *Agent) SetInstance(ctx context.Context, in api.SetInstance) (api.InstanceChange, error) {
	if a.managed == nil {
		return api.InstanceChange{}, notManaged()
	}
	if a.cluster != nil {
		return api.InstanceChange{}, hasMembers()
	}
	a.sizing.changing.Lock()
	defer a.sizing.changing.Unlock()
	before := a.sizing.now()
	size, err := a.resized(before, in)
	if err != nil {
		return api.InstanceChange{}, err
	}
	if err := size.Save(a.Dir.Size()); err != nil {
		return api.InstanceChange{}, err
	}
	if err := a.take(ctx, size); err != nil {
		return api.InstanceChange{}, err
	}
	out := api.InstanceChange{Size: describeSize(size), Pending: a.pending()}
	if in.Restart && len(out.Pending) > 0 {
		a.Log.Info("the managed server is restarted, as its operator asks for", "settings", out.Pending)
		if err := a.managed.Restart(ctx); err != nil {
			return api.InstanceChange{}, a.takeBack(ctx, before, err)
		}
		out.Restarted = true
		if err := a.askSettings(ctx, time.Time{}); err != nil {
			return api.InstanceChange{}, err
		}
		out.Pending = a.pending()
	}
	a.sizing.mu.Lock()
	if a.sizing.unenforced != nil && size.Sized() {
		out.Limits = a.sizing.unenforced.Error()
	}
	a.sizing.mu.Unlock()
	return out, nil
}

// resized is a size with what a request changes of it.
func (a *Agent) resized(size tier.Size, in api.SetInstance) (tier.Size, error) {
	if in.Tier != nil {
		size.Tier = *in.Tier
	}
	if in.VCores != nil {
		size.VCores = *in.VCores
	}
	if in.MemoryBytes != nil {
		size.Memory = *in.MemoryBytes
	}
	if in.StorageBytes != nil {
		size.Storage = *in.StorageBytes
	}
	if in.Benefit != nil {
		size.Benefit = *in.Benefit
	}
	size = size.Complete()
	if err := size.Check(); err != nil {
		return size, err
	}
	if in.StorageBytes == nil {
		return size, nil
	}
	storage, err := a.measure()
	if err == nil && size.Storage < storage.UsedBytes {
		err = problem.New(problem.Conflict, "storage_below_use", "the instance takes %s, which is more than %s", bytesText(storage.UsedBytes), bytesText(size.Storage)).On("storage").
			WithHint("give it more, or remove data first")
	}
	return size, err
}

// take gives the instance a size. The server reads its settings, where it runs.
func (a *Agent) take(ctx context.Context, size tier.Size) error {
	ctx, stop := context.WithTimeout(ctx, settleTime)
	defer stop()
	var loaded pg.Applied
	running := a.managed.PID() != 0
	if running {
		var err error
		if loaded, err = a.server.Settings(ctx, instance.ConfigFile, nil, time.Time{}); err != nil {
			return err
		}
	}
	a.sizing.mu.Lock()
	a.sizing.size = size
	a.sizing.mu.Unlock()
	reads, err := a.managed.Apply(a.serverSettings(size))
	if err != nil {
		return err
	}
	a.confine(size)
	if _, err := a.measure(); err != nil {
		return err
	}
	if !running {
		return nil
	}
	if !reads {
		loaded.LoadedAt = time.Time{}
	}
	return a.askSettings(ctx, loaded.LoadedAt)
}

// takeBack brings the size of before back, when the server did not start with another one.
func (a *Agent) takeBack(ctx context.Context, before tier.Size, why error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer stop()
	err := before.Save(a.Dir.Size())
	if err == nil {
		a.sizing.mu.Lock()
		a.sizing.size = before
		a.sizing.mu.Unlock()
		_, err = a.managed.Apply(a.serverSettings(before))
	}
	a.confine(before)
	if err == nil {
		err = a.managed.WaitReady(ctx)
	}
	if err != nil {
		a.Log.Error("the size of before is not back", telemetry.Failure(err))
		return why
	}
	return problem.Wrap(why, problem.Resource, "instance_change_undone", "the server did not start with the new size, and has the one of before again").
		WithHint("choose a size that the machine has; the log of the server says more")
}

// pending lists the settings that wait for a restart.
func (a *Agent) pending() []string {
	a.sizing.mu.Lock()
	defer a.sizing.mu.Unlock()
	if a.sizing.settings == nil {
		return nil
	}
	return slices.Clone(a.sizing.settings.Pending)
}

// instanceProblems is what is wrong with the size of a managed instance and its storage.
func (a *Agent) instanceProblems() []api.Problem {
	if a.managed == nil || a.cluster != nil {
		return nil
	}
	a.sizing.mu.Lock()
	defer a.sizing.mu.Unlock()
	var list []api.Problem
	all := a.sizing.problems(time.Now(), a.managed.DataDir())
	if p := a.meter.Problem(); p != nil {
		all = append(all, p)
	}
	if now := a.meter.Now(); now.Unlogged && now.Passive {
		all = append(all, problem.New(problem.Conflict, "usage_unlogged", "the hour under way cannot be a passive one: sessions are not logged as the agent has set it").On("log_connections").
			WithHint("ALTER SYSTEM, ALTER ROLE and ALTER DATABASE ... RESET log_connections, log_destination and log_timezone bring it back"))
	}
	for _, p := range all {
		list = append(list, shown(p, api.Warns))
	}
	return list
}
