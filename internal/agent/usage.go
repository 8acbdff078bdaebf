package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/tier"
	"github.com/twinspan/twinspan/internal/usage"
)

// openUsage sets up the counting of hours of a managed server. Those of an instance with several members are not counted.
func (a *Agent) openUsage() {
	a.meter = &usage.Meter{
		Server: a.server, LogDir: filepath.Join(a.managed.DataDir(), "log"), Log: a.Log,
		Wanted: func() bool {
			size := a.sizing.now()
			return a.managed.PID() != 0 && (size.Sized() || size.Benefit != tier.NoBenefit)
		},
		Declare: a.declared,
	}
}

// declared is what the instance is now, for the hour that is counted.
func (a *Agent) declared() (usage.Look, bool) {
	a.sizing.mu.Lock()
	size, storage := a.sizing.size, a.sizing.storage
	a.sizing.mu.Unlock()
	l := usage.Look{Tier: size.Tier, VCores: size.VCores, Storage: size.Storage, Role: usage.Standalone, Passive: size.Benefit == tier.PassiveDR}
	if storage != nil {
		l.Used = storage.UsedBytes
	}
	roles := a.roleCount()
	switch {
	case roles.Primary > 0:
		l.Role = usage.Primary
	case roles.Secondary > 0:
		l.Role = usage.Secondary
	}
	return l, roles.Known
}

// Usage implements httpapi.Agent.
func (a *Agent) Usage(ctx context.Context, month string) (api.Usage, error) {
	if a.managed == nil {
		return api.Usage{}, notManaged()
	}
	if a.cluster != nil {
		return api.Usage{}, hasMembers()
	}
	from := time.Now().UTC()
	if month != "" {
		var err error
		if from, err = time.Parse("2006-01", month); err != nil {
			return api.Usage{}, problem.New(problem.Invalid, "month_invalid", "there is no month %q", month).On(month).WithHint("write it as 2026-11")
		}
	}
	from = time.Date(from.Year(), from.Month(), 1, 0, 0, 0, 0, time.UTC)
	r, err := a.meter.Read(ctx, from, from.AddDate(0, 1, 0))
	if err != nil {
		return api.Usage{}, err
	}
	out := api.Usage{
		Month: from.Format("2006-01"), Hours: []api.UsageHour{}, Totals: []api.UsageTotal{}, UnknownHours: r.UnknownHours,
		PayAsYouGo:  api.UsagePayment{VCoreHours: r.VCoreHours, Discount: r.Discount, Billed: r.Billed()},
		OwnLicences: api.UsageLicences{Taken: r.Billed(), GivenBack: r.Discount},
	}
	for _, l := range r.Lines {
		out.Hours = append(out.Hours, describeHour(l))
	}
	for _, t := range r.Totals {
		out.Totals = append(out.Totals, api.UsageTotal{VCores: t.VCores, Role: t.Role, State: t.State, Hours: t.Hours, VCoreHours: t.Hours * t.VCores})
	}
	if now := a.meter.Now(); now.State == usage.Passive {
		out.OwnLicences.BackNow = now.VCores
	} else {
		out.OwnLicences.Now = now.VCores
	}
	return out, nil
}

func describeHour(l usage.Line) api.UsageHour {
	out := api.UsageHour{Start: l.Start, Tier: l.Tier, VCores: l.VCores, StorageBytes: l.Storage, Role: l.Role, State: l.State, Why: l.Why,
		Declared: l.Passive, Open: l.Open, Voids: []api.UsageVoid{}}
	for _, v := range l.Voids {
		out.Voids = append(out.Voids, api.UsageVoid{Role: v.Role, Database: v.Database, Application: v.Application, Client: v.Client, FirstAt: v.First})
	}
	return out
}

// usageNow is the hour under way, nil while none is counted.
func (a *Agent) usageNow() *api.UsageHour {
	if a.meter == nil {
		return nil
	}
	now := a.meter.Now()
	if now.Start.IsZero() {
		return nil
	}
	out := describeHour(now)
	return &out
}
